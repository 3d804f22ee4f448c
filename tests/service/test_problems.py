import logging
from collections.abc import AsyncIterator
from typing import Annotated

import httpx
import pytest
from fastapi import FastAPI, Query, Request
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse

from service.errors import Overloaded
from service.problems import install_problem_handlers


def failing_api() -> FastAPI:
    api = FastAPI()
    install_problem_handlers(api)

    @api.get("/busy")
    async def busy(request: Request) -> None:
        request.state.request_id = "req-1"
        raise Overloaded("The queue is full.", retry_after_s=2, queue_tokens=7)

    @api.get("/bug")
    async def bug() -> None:
        raise RuntimeError("secret: hunter2")

    @api.get("/late-bug")
    async def late_bug() -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            yield b"a"
            raise RuntimeError("too late")

        return StreamingResponse(body())

    @api.get("/number")
    async def number(wait: Annotated[float, Query(ge=0, le=300, allow_inf_nan=False)]) -> float:
        return wait

    @api.get("/teapot")
    async def teapot() -> None:
        raise HTTPException(418)

    return api


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=failing_api())
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def test_a_service_error_is_answered_with_its_words_headers_and_request_id(client: httpx.AsyncClient) -> None:
    answer = await client.get("/busy")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "2")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "about:blank",
        "title": "Too many requests",
        "status": 429,
        "detail": "The queue is full.",
        "error": "The queue is full.",
        "error_type": "overloaded",
        "request_id": "req-1",
        "retry_after_s": 2,
        "queue_tokens": 7,
    }


async def test_an_unexpected_error_keeps_its_words_private_and_logs_them_once(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await client.get("/bug")
    assert (answer.status_code, answer.json()["error_type"]) == (500, "internal")
    assert "hunter2" not in answer.text
    records = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(records) == 1 and records[0].exc_info is not None


async def test_an_error_after_the_answer_began_is_not_hidden(client: httpx.AsyncClient) -> None:
    with pytest.raises(RuntimeError, match="too late"):
        await client.get("/late-bug")


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("POST", "/busy", 405, "method_not_allowed"),
        ("GET", "/teapot", 418, "i'm_a_teapot"),
    ],
)
async def test_what_the_router_refuses_has_the_same_shape(
    client: httpx.AsyncClient, method: str, path: str, status: int, kind: str
) -> None:
    answer = await client.request(method, path)
    assert (answer.status_code, answer.json()["status"], answer.json()["error_type"]) == (status, status, kind)
    assert answer.headers["content-type"] == "application/problem+json"
    assert path in answer.json()["detail"]
    assert (answer.headers.get("allow") == "GET") == (status == 405)


@pytest.mark.parametrize("value", ["soon", "-1", "301", "nan", "inf", "", "x" * 500])
async def test_a_refused_parameter_is_named_with_its_value(client: httpx.AsyncClient, value: str) -> None:
    answer = await client.get("/number", params={"wait": value})
    assert (answer.status_code, answer.json()["error_type"]) == (422, "validation")
    assert answer.json()["detail"].startswith("wait: ")
    assert repr(value)[:80] in answer.json()["detail"]
    assert len(answer.text) < 700


async def test_a_missing_parameter_is_named(client: httpx.AsyncClient) -> None:
    assert "wait: Field required" in (await client.get("/number")).json()["detail"]
