"""``GET /admin/events``: what happens to the dial, as server-sent events."""

import json
from collections.abc import AsyncIterator, Callable

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from service.errors import BadRequest, NotReady
from service.event_log import EventLog
from service.problems import shown

SILENCE_S = 15.0
"""Seconds after which a comment shows that the connection lives: proxies cut those that are silent for long."""
LISTENERS = 64
"""Most connections at once."""
LAST_ID = "last-event-id"


def event_routes(log: Callable[[], EventLog]) -> APIRouter:
    """Return the router; ``log`` gives the running controller's log."""
    router = APIRouter(tags=["read"])
    listening = 0

    @router.get("/events", responses={200: {"content": {"text/event-stream": {}}}})
    async def get_events(request: Request) -> StreamingResponse:
        """Tell of every phase of a change, and of the policy, as they come; after ``Last-Event-ID`` if it is sent."""
        if listening >= LISTENERS:
            raise NotReady(f"{LISTENERS} listeners are connected already.", retry_after_s=10)
        return StreamingResponse(
            stream(log(), _number(request.headers.get(LAST_ID))),
            media_type="text/event-stream",
            headers={"cache-control": "no-store", "x-accel-buffering": "no"},
        )

    async def stream(events: EventLog, after: int | None) -> AsyncIterator[str]:
        nonlocal listening
        listening += 1
        try:
            yield ": connected\n\n"
            async for event in events.follow(after, silence_s=SILENCE_S):
                if event is None:
                    yield ": alive\n\n"
                    continue
                data = json.dumps({"at": event.at, **event.data})
                yield f"id: {event.number}\nevent: {event.kind}\ndata: {data}\n\n"
        finally:
            listening -= 1

    return router


def _number(last_id: str | None) -> int | None:
    """Return the number of the last event that a client has, None if it has none."""
    if last_id is None:
        return None
    if not (last_id.isascii() and last_id.isdecimal() and len(last_id) < 18):
        raise BadRequest(f"Last-Event-ID must be the id of an event, a whole number; got {shown(last_id)}.")
    return int(last_id)
