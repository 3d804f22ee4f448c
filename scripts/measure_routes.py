"""Time what stands around the model for one short text: middleware, route, body, answer; with and without the shortcut.

python scripts/measure_routes.py

No model and no socket: the application of a replica is called as its server calls it, and the place of the model takes
an answer that is there already. Microseconds of the processor for each request.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

from fastapi import FastAPI
from starlette.types import ASGIApp, Message

from service.direct_routes import DirectRoutes
from service.errors import Overloaded
from service.inflight import Exchange
from service.info import ModelCard
from service.ingress import build_inference_api
from service.runtime import Answer
from service.settings import Settings

REQUESTS = 3000
ROUNDS = 3
BODY = b'{"inputs":"a film of nineteen words, which says in all of them what it is about, and then goes home"}'
VARIANT = {"x-generation": "1", "x-variant": "0" * 16, "x-sparsity": "0.0000"}


class AnsweredAlready:
    """What the routes need of a runtime."""

    def __init__(self, *, full: bool) -> None:
        """Have room, or none."""
        self._full = full
        self._answer = Answer(b'[{"label":"positive","score":0.9}]', {**VARIANT, "x-queue-time": "0.100"})

    @contextmanager
    def track(self, route: str) -> Iterator[Exchange]:
        """Follow one request, without counting it."""
        yield Exchange()

    def check_room(self) -> None:
        """Refuse everything if there is no room."""
        if self._full:
            raise Overloaded("The queue is full.", retry_after_s=1)

    def variant_headers(self) -> dict[str, str]:
        """Return the headers of a variant."""
        return VARIANT

    async def classify(self, *asked: object) -> Answer:
        """Return the answer."""
        return self._answer


def main() -> None:
    """Print microseconds for a request."""
    routed, direct, refusing = application(), application(), application(full=True)
    routed.user_middleware = [one for one in routed.user_middleware if cast(Any, one.cls) is not DirectRoutes]
    contestants = {"by the router": (routed, 200), "by the shortcut": (direct, 200), "refused": (refusing, 429)}
    print("| one short text | us |\n| --- | --- |")
    for name, (app, status) in contestants.items():
        best = min(asyncio.run(microseconds(app, status)) for _ in range(ROUNDS))
        print(f"| {name} | {best:.0f} |", flush=True)


def application(*, full: bool = False) -> FastAPI:
    """Return the application of a replica around a model that has answered already."""
    card = ModelCard(model_id="none", digest="0" * 64, version="0", threads=1)
    runtime = cast(Any, AnsweredAlready(full=full))
    return build_inference_api(runtime, cast(Any, SimpleNamespace()), Settings(), card)


async def microseconds(app: ASGIApp, status: int) -> float:
    """Return the processor's time for a request, by the mean of ``REQUESTS``."""
    assert await answered(app) == status
    started = time.process_time()
    for _ in range(REQUESTS):
        await answered(app)
    return 1e6 * (time.process_time() - started) / REQUESTS


async def answered(app: ASGIApp) -> int:
    """Return the status of one answer."""
    messages: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": BODY, "more_body": False}

    async def send(message: Message) -> None:
        messages.append(message)

    headers = [(b"host", b"x"), (b"content-type", b"application/json"), (b"content-length", str(len(BODY)).encode())]
    scope = {"type": "http", "method": "POST", "path": "/predict", "root_path": "", "query_string": b"", "state": {}}
    await app({**scope, "headers": headers, "server": ("x", 80), "client": ("x", 1)}, receive, send)
    return int(messages[0]["status"])


if __name__ == "__main__":
    main()
