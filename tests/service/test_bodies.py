import math
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI, Request

from service.bodies import read_json
from service.problems import install_problem_handlers

LIMIT = 1000


def echo_api() -> FastAPI:
    api = FastAPI()
    install_problem_handlers(api)

    @api.post("/")
    async def echo(request: Request) -> str:
        return repr(await read_json(request, LIMIT))

    return api


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=echo_api())
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "Application/JSON; charset=UTF-8", 'application/json;charset="utf-8"', "application/x.y+json"],
)
async def test_json_by_any_of_its_names_is_read(client: httpx.AsyncClient, content_type: str) -> None:
    answer = await client.post("/", content=b'{"a": [1, "\xc3\xa9"]}', headers={"content-type": content_type})
    assert answer.json() == "{'a': [1, 'é']}"


async def test_a_byte_order_mark_is_ignored(client: httpx.AsyncClient) -> None:
    assert (await client.post("/", content=b"\xef\xbb\xbf[1]", headers=JSON)).json() == "[1]"


async def test_nan_is_left_for_validation_to_name(client: httpx.AsyncClient) -> None:
    assert (await client.post("/", content=b"[NaN, -Infinity]", headers=JSON)).json() == f"[{math.nan}, {-math.inf}]"


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1"]
)
async def test_other_content_types_are_refused(client: httpx.AsyncClient, content_type: str | None) -> None:
    headers = {"content-type": content_type} if content_type else {}
    answer = await client.post("/", content=b"{}", headers=headers)
    assert (answer.status_code, answer.json()["error_type"]) == (415, "unsupported_media_type")
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"\xff\xfe{\x00}\x00", "not UTF-8: byte 0"),
        (b'{"a": "\xe9"}', "not UTF-8: byte 7"),
        (b'{"a": }', "line 1, column 7"),
        (b"{'a': 1}", "not JSON"),
        (b"[1] [2]", "not JSON"),
    ],
)
async def test_malformed_bodies_are_refused_with_the_place(client: httpx.AsyncClient, body: bytes, words: str) -> None:
    answer = await client.post("/", content=body, headers=JSON)
    assert (answer.status_code, answer.json()["error_type"]) == (400, "bad_request")
    assert words in answer.json()["detail"]


@pytest.mark.parametrize(("body", "words"), [(b"9" * 5000, "too many digits"), (b"[" * 200_000, "nested too deeply")])
async def test_bodies_that_python_cannot_hold_are_refused(body: bytes, words: str) -> None:
    api = FastAPI()
    install_problem_handlers(api)

    @api.post("/")
    async def echo(request: Request) -> str:
        return repr(await read_json(request, 1_000_000))

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=api), base_url="http://test") as client:
        answer = await client.post("/", content=body, headers=JSON)
    assert answer.status_code == 400
    assert words in answer.json()["detail"]


async def chunks(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"[" * 100


@pytest.mark.parametrize("announced", [True, False])
async def test_an_oversize_body_is_refused_whether_announced_or_streamed(
    client: httpx.AsyncClient, announced: bool
) -> None:
    answer = await client.post("/", content=b" " * (LIMIT + 1) if announced else chunks(11), headers=JSON)
    assert (answer.status_code, answer.json()["error_type"]) == (413, "too_large")
    assert answer.json()["limit_bytes"] == LIMIT


async def test_a_body_of_exactly_the_limit_is_read(client: httpx.AsyncClient) -> None:
    assert (await client.post("/", content=b"1".ljust(LIMIT), headers=JSON)).json() == "1"


async def test_a_client_that_hangs_up_is_a_bad_request() -> None:
    messages: list[dict[str, object]] = [
        {"type": "http.disconnect"},
        {"type": "http.request", "body": b"[", "more_body": True},
    ]

    async def receive() -> dict[str, object]:
        return messages.pop()

    sent: list[dict[str, object]] = []

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    await echo_api()(scope, receive, send)  # type: ignore[arg-type]
    assert sent[0]["status"] == 400
