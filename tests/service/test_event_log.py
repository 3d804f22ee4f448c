import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress

import httpx
import pytest
from fastapi import FastAPI

from service.event_log import KEPT, EventLog, LoggedEvent
from service.event_routes import event_routes
from service.problems import install_problem_handlers


async def numbers(events: AsyncIterator[LoggedEvent | None], count: int) -> list[int | None]:
    found: list[int | None] = []
    async for event in events:
        found.append(event.number if event else None)
        if len(found) == count:
            break
    return found


async def test_who_follows_gets_every_event_once_in_order() -> None:
    log = EventLog()
    log.append("operation", {"n": 1})
    following = asyncio.create_task(numbers(log.follow(0, silence_s=60), 4))
    for number in range(2, 5):
        await asyncio.sleep(0)
        log.append("operation", {"n": number})
    assert await following == [1, 2, 3, 4]


async def test_who_begins_now_gets_what_comes_and_who_was_away_what_came() -> None:
    log = EventLog()
    for _ in range(3):
        log.append("policy", {})
    only_new = asyncio.create_task(numbers(log.follow(None, silence_s=60), 1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    log.append("policy", {})
    assert await only_new == [4]
    assert await numbers(log.follow(2, silence_s=60), 2) == [3, 4]
    assert await numbers(log.follow(99, silence_s=60), 1) == [1]


async def test_a_controller_tells_all_of_its_events_to_who_followed_the_one_before() -> None:
    log = EventLog(after=1000)
    for _ in range(3):
        log.append("operation", {})
    assert await numbers(log.follow(2, silence_s=60), 3) == [1001, 1002, 1003]
    assert await numbers(log.follow(0, silence_s=60), 3) == [1001, 1002, 1003]
    assert await numbers(log.follow(1002, silence_s=60), 1) == [1003]


async def test_silence_is_told_and_the_end_ends() -> None:
    log = EventLog()
    assert await numbers(log.follow(silence_s=0.001), 2) == [None, None]
    following = asyncio.create_task(numbers(log.follow(silence_s=60), 1))
    await asyncio.sleep(0)
    log.close()
    assert await following == []


async def test_of_many_the_last_are_kept() -> None:
    log = EventLog()
    for _ in range(KEPT + 5):
        log.append("operation", {})
    assert await numbers(log.follow(0, silence_s=60), 1) == [6]


@pytest.fixture
def log() -> EventLog:
    return EventLog()


@pytest.fixture
async def client(log: EventLog) -> AsyncIterator[httpx.AsyncClient]:
    api = FastAPI()
    api.include_router(event_routes(lambda: log))
    install_problem_handlers(api)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://admin") as made:
        yield made


async def test_the_route_speaks_server_sent_events(client: httpx.AsyncClient, log: EventLog) -> None:
    log.append("operation", {"phase": "building"})
    log.append("policy", {"mode": "auto"})
    asking = asyncio.create_task(client.get("/events", headers={"last-event-id": "1"}))
    for _ in range(50):
        await asyncio.sleep(0)
    log.close()
    answer = await asking
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    _, event = answer.text.strip().split("\n\n")
    fields = dict(line.split(": ", 1) for line in event.splitlines())
    assert (fields["id"], fields["event"]) == ("2", "policy")
    assert json.loads(fields["data"])["mode"] == "auto"


@pytest.mark.parametrize("last", ["x", "-1", "1.5", "9" * 30])
async def test_an_id_that_is_none_is_refused(client: httpx.AsyncClient, last: str) -> None:
    assert (await client.get("/events", headers={"last-event-id": last})).status_code == 400


async def test_listeners_are_bounded_and_make_room_when_they_go(
    client: httpx.AsyncClient, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.event_routes.LISTENERS", 1)
    first = asyncio.create_task(client.get("/events"))
    for _ in range(50):
        await asyncio.sleep(0)
    assert (await client.get("/events")).status_code == 503
    first.cancel()
    with suppress(asyncio.CancelledError):
        await first
    log.close()
    assert (await client.get("/events")).status_code == 200
