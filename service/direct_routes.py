"""The shortcut to the routes that are asked all the time, past a router that serves any application.

FastAPI describes these routes like all others. To find one by it and to prepare the arguments of its function, though
they have none, takes longer than everything that we do for a short text beside the model
(``python scripts/measure_routes.py``).
"""

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import ServiceError
from service.problems import problem_response

Endpoint = Callable[[Request], Awaitable[Response]]


class DirectRoutes:
    """A middleware, to be added before all others: answers the routes that it knows, leaving the rest to the router."""

    def __init__(
        self, app: ASGIApp, endpoints: Mapping[tuple[str, str], Endpoint], check: Callable[[Request], None] | None
    ) -> None:
        """Go around the router.

        Args:
            app: what answers all other routes.
            endpoints: by method and path.
            check: raises a ``ServiceError`` for a request that may not use them; None lets all of them.
        """
        self._app = app
        self._endpoints = endpoints
        self._check = check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        endpoint = self._endpoints.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if endpoint is None:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            if self._check is not None:
                self._check(request)
            response = await endpoint(request)
        except ServiceError as error:
            response = problem_response(error, request)
        await response(scope, receive, send)
