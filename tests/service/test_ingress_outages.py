"""What the inference API says while it is overloaded, late, broken or draining."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from pruning.encoder import BaseModel
from service.ingress import build_inference_api
from service.runtime import InferenceRuntime
from service.settings import Settings
from tests.service.inference_parts import (
    CARD,
    JSON,
    ON_ALL,
    HeldModel,
    breaking_on,
    client_of,
    desk_of,
    engine_of,
    runtime_of,
)


async def test_an_engine_error_is_a_500_without_private_words(base: BaseModel, tiny_model_dir: Path) -> None:
    runtime = runtime_of(breaking_on(base, "good", nan=False), tiny_model_dir)
    async with client_of(runtime) as client:
        answer = await client.post("/", json={"inputs": "good"})
    assert answer.status_code == 500
    assert "kernel" not in answer.text
    assert set(ON_ALL) <= set(answer.headers)


async def test_a_full_queue_is_a_429_with_retry_after(base: BaseModel, tiny_model_dir: Path) -> None:
    settings = Settings(max_queue_tokens=8)
    runtime = runtime_of(engine_of(base), tiny_model_dir, settings)
    async with client_of(runtime, settings) as client:
        answers = await asyncio.gather(*(client.post("/", json={"inputs": "good film"}) for _ in range(30)))
    refused = [answer for answer in answers if answer.status_code != 200]
    assert {answer.status_code for answer in refused} == {429}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert all(set(ON_ALL) <= set(answer.headers) for answer in refused)


async def test_a_full_queue_refuses_before_the_body_is_read(base: BaseModel, tiny_model_dir: Path) -> None:
    held = HeldModel(engine_of(base).model)
    settings = Settings(max_queue_tokens=4)
    runtime = runtime_of(engine_of(base, model=held), tiny_model_dir, settings)

    async def unread() -> AsyncIterator[bytes]:
        pytest.fail("the body was read")
        yield b""

    async with client_of(runtime, settings) as client:
        running = asyncio.create_task(client.post("/", json={"inputs": "good"}))
        assert await asyncio.to_thread(held.entered.wait, 10)
        waiting = asyncio.create_task(client.post("/", json={"inputs": "good film"}))
        async with asyncio.timeout(10):
            while 'sparsedial_queue_tokens{replica="r1"} 4.0' not in await runtime.metrics_page():
                await asyncio.sleep(0.001)
        refused = await client.post("/", content=unread(), headers=JSON)
        held.let_go.set()
        assert [(await running).status_code, (await waiting).status_code] == [200, 200]
        page = (await client.get("/metrics")).text
    assert refused.status_code == 429
    assert refused.headers["content-type"] == "application/problem+json"
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["request_id"] == refused.headers["x-request-id"]
    assert set(ON_ALL) <= set(refused.headers)
    assert 'sparsedial_requests_total{replica="r1",outcome="overloaded",route="/"} 1.0' in page


async def test_no_answer_in_time_is_a_504(base: BaseModel, tiny_model_dir: Path) -> None:
    settings = Settings(request_timeout_s=1e-6)
    async with client_of(runtime_of(engine_of(base), tiny_model_dir, settings), settings) as client:
        answer = await client.post("/", json={"inputs": "good"})
    assert answer.status_code == 504
    assert set(ON_ALL) <= set(answer.headers)


async def test_a_deadline_is_kept_and_one_that_is_no_number_is_a_422(client: httpx.AsyncClient) -> None:
    ample = await client.post("/predict", json={"inputs": "good"}, headers={"x-deadline-ms": "20000"})
    wrong = await client.post("/predict", json={"inputs": "good"}, headers={"x-deadline-ms": "soon"})
    assert (ample.status_code, wrong.status_code) == (200, 422)
    assert "'soon'" in wrong.json()["error"]


async def test_a_deadline_counts_from_the_arrival_and_names_itself(base: BaseModel, tiny_model_dir: Path) -> None:
    runtime = runtime_of(engine_of(base), tiny_model_dir)

    class Slow:
        """What takes its time before a route is reached."""

        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await asyncio.sleep(0.05)
            await self.app(scope, receive, send)

    api = build_inference_api(runtime, desk_of(runtime), Settings(), CARD)
    api.user_middleware.insert(1, Middleware(Slow))  # within the one that notes the arrival
    runtime.start()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://test") as client:
        answer = await client.post("/predict", json={"inputs": "good"}, headers={"x-deadline-ms": "10"})
    await runtime.stop()
    assert answer.status_code == 504
    assert "the 0.01 s of x-deadline-ms" in answer.json()["error"]


async def test_a_body_that_does_not_arrive_in_time_is_a_504(runtime: InferenceRuntime) -> None:
    async def stalls() -> AsyncIterator[bytes]:
        yield b'{"inputs": '
        await asyncio.Event().wait()

    async with client_of(runtime, Settings(request_timeout_s=0.05)) as client:
        answer = await client.post("/", content=stalls(), headers=JSON)
    assert answer.status_code == 504
    assert "did not arrive within 0.05 s" in answer.json()["detail"]


async def test_health_is_empty_when_ready_and_a_problem_when_draining(
    client: httpx.AsyncClient, runtime: InferenceRuntime
) -> None:
    ready = await client.get("/health")
    assert (ready.status_code, ready.content) == (200, b"")
    runtime.start_draining()
    for answer in (await client.get("/health"), await client.post("/", json={"inputs": "good"})):
        assert answer.status_code == 503
        assert answer.json()["error_type"] == "unhealthy"
        assert set(ON_ALL) <= set(answer.headers)
        assert answer.headers["retry-after"] == "1"
