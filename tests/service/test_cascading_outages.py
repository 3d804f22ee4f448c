"""Where the dense model cannot be asked, the level's own answers stand."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from pruning.encoder import BaseModel
from service.deadlines import Deadline
from service.errors import Overloaded
from service.escalation import RESERVE_S
from service.runtime import InferenceRuntime
from tests.service.cascade_parts import CASCADED, TEXTS, cascade, serving
from tests.service.inference_parts import HeldModel, breaking_on, engine_of
from tests.service.test_runtime import query


def full(runtime: InferenceRuntime) -> Callable[..., Any]:
    """The batcher's ``submit``, with room for the level alone."""
    submit = runtime._batcher.submit

    async def without_room(sequences: Any, deadline: Any = None, choice: Any = None) -> Any:
        if choice.manifest.spec.sparsity == 0.0:
            raise Overloaded("The queue is full.", retry_after_s=1)
        return await submit(sequences, deadline, choice)

    return without_room


async def test_where_the_queue_is_full_the_level_s_answers_stand(
    base: BaseModel, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(base, tiny_model_dir) as service:
        monkeypatch.setattr(service.runtime._batcher, "submit", full(service.runtime))
        answer = await service.runtime.classify(query(*TEXTS, wish=CASCADED))
    assert orjson.loads(answer.body) == service.alone
    assert (answer.headers["x-escalated"], answer.headers["x-not-escalated"]) == ("0 of 6", "3 busy")
    assert 'sparsedial_cascade_texts_total{outcome="busy",sparsity="0.5"} 3.0' in service.metrics.page()


async def test_where_the_deadline_comes_first_the_level_s_answers_stand(base: BaseModel, tiny_model_dir: Path) -> None:
    held = HeldModel(engine_of(base).model)
    async with serving(base, tiny_model_dir, dense=engine_of(base, "dense", model=held)) as service:
        asked = query(*TEXTS, wish=CASCADED)
        running = asyncio.create_task(service.runtime.classify(asked, Deadline.in_seconds(2.0)))
        answer = await running
        held.let_go.set()
    assert orjson.loads(answer.body) == service.alone
    assert (answer.headers["x-escalated"], answer.headers["x-not-escalated"]) == ("0 of 6", "3 late")


async def test_the_dense_model_is_given_up_while_there_is_time_to_answer(
    base: BaseModel, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(base, tiny_model_dir) as service:
        submit, until = service.runtime._batcher.submit, []

        async def noted(sequences: Any, deadline: Any = None, choice: Any = None) -> Any:
            until.append(deadline.at)
            return await submit(sequences, deadline, choice)

        monkeypatch.setattr(service.runtime._batcher, "submit", noted)
        deadline = Deadline.in_seconds(60.0)
        await service.runtime.classify(query(*TEXTS, wish=CASCADED), deadline)
    assert until == [deadline.at, deadline.at - RESERVE_S]


async def test_where_the_dense_model_fails_the_level_s_answers_stand(base: BaseModel, tiny_model_dir: Path) -> None:
    broken = breaking_on(base, "good", nan=True)
    broken = engine_of(base, "dense", model=broken.model)
    async with serving(base, tiny_model_dir, dense=broken) as service:
        service.runtime.dial._cascades = {"half": (cascade(0.99, 1.1),)}
        answer = await service.runtime.classify(query(*TEXTS, wish=CASCADED))
    assert orjson.loads(answer.body) == service.alone
    assert answer.headers["x-not-escalated"] == "6 failed"
