import time
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from service.answer_headers import AnswerHeaders, IdLeftToServer, variant_headers

LIVE = variant_headers(3, "a" * 16, 0.49651)


async def show_id(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.state.request_id)


async def answer_of_its_own(request: Request) -> PlainTextResponse:
    return PlainTextResponse("", headers=variant_headers(2, "b" * 16, 0.3) | {"x-total-time": "1.500"})


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = Starlette(
        routes=[Route("/", show_id), Route("/own", answer_of_its_own)],
        middleware=[Middleware(AnswerHeaders, variant=lambda: LIVE)],
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


def test_a_variant_is_named_with_its_sparsity_to_four_places() -> None:
    assert LIVE == {"x-generation": "3", "x-variant": "a" * 16, "x-sparsity": "0.4965"}


@pytest.mark.parametrize("path", ["/", "/nowhere"])
async def test_an_answer_names_its_request_and_the_variant_of_now(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path, headers={"x-request-id": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    assert LIVE.items() <= dict(answer.headers).items()


@pytest.mark.parametrize("path", ["/", "/nowhere"])
async def test_an_answer_says_how_long_it_took(client: httpx.AsyncClient, path: str) -> None:
    started = time.perf_counter()
    answer = await client.get(path)
    assert 0 < float(answer.headers["x-total-time"]) <= 1e3 * (time.perf_counter() - started)


async def test_an_answer_that_took_its_own_time_keeps_it(client: httpx.AsyncClient) -> None:
    assert (await client.get("/own")).headers.get_list("x-total-time") == ["1.500"]


async def test_the_application_sees_the_id_that_the_answer_carries(client: httpx.AsyncClient) -> None:
    answer = await client.get("/")
    assert answer.text == answer.headers["x-request-id"]
    assert len(answer.text) == 32


async def test_an_answer_that_names_its_variant_keeps_it(client: httpx.AsyncClient) -> None:
    answer = await client.get("/own")
    assert variant_headers(2, "b" * 16, 0.3).items() <= dict(answer.headers).items()
    assert answer.headers.get_list("x-variant") == ["b" * 16]


async def test_the_id_alone_can_be_left_to_the_server_around() -> None:
    layers = [Middleware(IdLeftToServer), Middleware(AnswerHeaders, variant=lambda: LIVE)]
    app = Starlette(routes=[Route("/", show_id)], middleware=layers)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answer = await client.get("/", headers={"x-request-id": "mine-1"})
    assert answer.text == "mine-1" and "x-request-id" not in answer.headers
    assert LIVE.items() <= dict(answer.headers).items()


async def test_what_is_not_http_passes_untouched() -> None:
    seen = []

    async def app(scope: object, receive: object, send: object) -> None:
        seen.append((scope, send))

    async def send(message: object) -> None: ...

    scope = {"type": "lifespan"}
    await AnswerHeaders(app, variant=lambda: LIVE)(scope, None, send)  # type: ignore[arg-type]
    assert seen == [(scope, send)]
