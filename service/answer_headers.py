"""The headers that every answer of both applications carries, refusals too: its request, its variant, its time."""

import asyncio
import time
from collections.abc import Callable, Mapping

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.request_ids import HEADER, request_id_of

TOTAL_TIME = "x-total-time"


def milliseconds(seconds: float) -> str:
    """Return a duration as the time headers show it."""
    return f"{1e3 * seconds:.3f}"


def variant_headers(generation: int, variant_id: str, achieved_sparsity: float) -> dict[str, str]:
    """Return the headers that name a variant."""
    return {"x-generation": str(generation), "x-variant": variant_id, "x-sparsity": f"{achieved_sparsity:.4f}"}


class AnswerHeaders:
    """A middleware: gives the request its id and its time of arrival, and the answer its headers.

    To be added last, around all others.
    """

    def __init__(self, app: ASGIApp, variant: Callable[[], Mapping[str, str]]) -> None:
        """Go around ``app``.

        Args:
            app: what answers.
            variant: gives the ``variant_headers`` of an answer that does not name its variant itself; called for
                each, from memory.
        """
        self._app = app
        self._variant = variant

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = request_id_of(scope)
        arrived_at = asyncio.get_running_loop().time()
        scope["state"] = {**scope.get("state", {}), "request_id": request_id, "arrived_at": arrived_at}

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message["headers"])
                headers[HEADER] = request_id
                if "x-generation" not in headers:
                    headers.update(self._variant())
                if TOTAL_TIME not in headers:
                    headers[TOTAL_TIME] = milliseconds(time.perf_counter() - started)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class IdLeftToServer:
    """A middleware for applications behind Ray Serve: answers without the request's id, which Serve appends to each.

    Serve hands the id on, its own where a caller gave none, and so it is the one that ``AnswerHeaders`` found. An id
    that is not a sane one Serve repeats all the same.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Go around ``app``, ``AnswerHeaders`` included."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def send_without_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                del MutableHeaders(raw=message["headers"])[HEADER]
            await send(message)

        await self._app(scope, receive, send_without_id)
