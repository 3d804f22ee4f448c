import asyncio
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from fastapi import FastAPI

from pruning.encoder import BaseModel
from pruning.tokenization import TextTokenizer
from service.cascading import Rule, cascade_for
from service.deadlines import Deadline
from service.engine import Engine
from service.errors import DeadlineExceeded, InferenceFailed, Invalid
from service.ingress import build_inference_api
from service.levels import Quality, Wish
from service.policy import CascadeChoice, Policy
from service.protocol import Trial
from service.runtime import InferenceRuntime
from service.settings import Settings
from tests.service.cascade_parts import CASCADED, FREE, TEXTS, cascade, serving
from tests.service.inference_parts import CARD, Opposite, desk_of, engine_of
from tests.service.test_runtime import query

USUAL = Policy(accuracy_floor=0.0, cascade=CascadeChoice(sparsity=0.5, agreement=0.98))


@pytest.fixture(scope="module")
def engines(base: BaseModel) -> dict[str, Engine]:
    return {name: engine_of(base, name, sparsity) for name, sparsity in (("dense", 0.0), ("half", 0.5), ("most", 0.75))}


KNOWN = {"half": (cascade(0.98), cascade(0.99))}


def rule_for(
    wish: Wish, engines: dict[str, Engine], policy: Policy, level: str | None = None, loaded: str = "dense half most"
) -> Rule | None:
    resident = [engines[name] for name in loaded.split()]
    return cascade_for(wish, engines[level] if level else None, resident, policy, KNOWN)


def test_a_request_names_its_level_and_the_policy_the_agreement(engines: dict[str, Engine]) -> None:
    wish = Wish(sparsity=0.5, cascade=True)
    assert rule_for(wish, engines, FREE, "half") == Rule(cascade(0.99), engines["half"], engines["dense"])
    assert rule_for(wish, engines, USUAL, "half") == Rule(cascade(0.98), engines["half"], engines["dense"])


def test_the_policy_s_cascade_answers_who_asks_for_nothing_and_no_one_else(engines: dict[str, Engine]) -> None:
    usual = Rule(cascade(0.98), engines["half"], engines["dense"])
    assert rule_for(Wish(), engines, USUAL) == usual
    assert rule_for(Wish(cascade=True), engines, USUAL) == usual
    assert rule_for(Wish(), engines, FREE) is None
    assert rule_for(Wish(cascade=False), engines, USUAL) is None
    assert rule_for(Wish(sparsity=0.75), engines, USUAL, "most") is None
    assert rule_for(Wish(quality=Quality.LOW), engines, USUAL, "most") is None
    assert rule_for(Wish(), engines, USUAL, level="most") is None  # a trial took it


def test_until_its_models_are_loaded_the_policy_s_cascade_answers_nobody(engines: dict[str, Engine]) -> None:
    assert rule_for(Wish(), engines, USUAL, loaded="dense most") is None
    assert rule_for(Wish(), engines, USUAL, loaded="half most") is None


@pytest.mark.parametrize(
    ("wish", "level", "policy", "loaded", "words"),
    [
        (Wish(cascade=True), None, FREE, "dense half", r"name its sparsity.*cascades begin at 0\.5"),
        (Wish(sparsity=0.75, cascade=True), "most", FREE, "dense half", r"at sparsity 0\.75; cascades begin at 0\.5"),
        (Wish(sparsity=0.5, cascade=True), "half", FREE, "half", "no level that is loaded has one"),
        (Wish(sparsity=0.0, cascade=True), "dense", FREE, "dense half", r"No cascade begins at sparsity 0; .*0\.5"),
        (Wish(sparsity=0.5, cascade=True), "half", FREE.changed({"min_sparsity": 0.1}), "dense half", r"bounds.*0\.1"),
        (Wish(cascade=True), None, Policy(accuracy_floor=0.95), "dense half", "no level that is loaded has one"),
    ],
)
def test_a_cascade_that_there_is_not_is_refused_by_name(
    engines: dict[str, Engine], wish: Wish, level: str | None, policy: Policy, loaded: str, words: str
) -> None:
    with pytest.raises(Invalid, match=words):
        rule_for(wish, engines, policy, level, loaded)


async def test_the_dense_model_answers_what_the_level_is_not_sure_of(base: BaseModel, tiny_model_dir: Path) -> None:
    async with serving(base, tiny_model_dir) as service:
        answer = await service.runtime.classify(query(*TEXTS, wish=CASCADED), request_id="r")
        tallies = {tally.variant_id: tally for tally in service.runtime.tallies}
    together = orjson.loads(answer.body)
    handed_on = [one[0]["score"] - one[1]["score"] < service.threshold for one in service.alone]
    assert sum(handed_on) == 3
    for text, alone, dense, handed in zip(together, service.alone, service.dense, handed_on, strict=True):
        assert text[0]["label"] == (dense if handed else alone)[0]["label"]
        assert text[0]["score"] == pytest.approx((dense if handed else alone)[0]["score"], abs=1e-5)
    assert answer.headers["x-escalated"] == "3 of 6"
    assert (answer.headers["x-variant"], answer.headers["x-generation"]) == ("half", "7")
    lengths = [len(one.ids) for one in TextTokenizer.load(tiny_model_dir).encode(TEXTS, max_length=48)]
    twice = sum(length for length, handed in zip(lengths, handed_on, strict=True) if handed)
    assert answer.headers["x-compute-tokens"] == str(sum(lengths) + twice)
    assert tallies["c0.99"].answered == 1 and tallies["half"].answered == 1  # the latter without a cascade
    page = service.metrics.page()
    assert 'sparsedial_cascade_texts_total{outcome="sure",sparsity="0.5"} 3.0' in page
    assert 'sparsedial_cascade_texts_total{outcome="escalated",sparsity="0.5"} 3.0' in page
    # A rate of what never happened is 0, and no gap in a panel.
    for outcome in ("busy", "late", "failed"):
        assert f'sparsedial_cascade_texts_total{{outcome="{outcome}",sparsity="0.5"}} 0.0' in page


async def test_true_labels_of_a_cascade_s_answer_are_the_cascade_s(base: BaseModel, tiny_model_dir: Path) -> None:
    async with serving(base, tiny_model_dir) as service:
        answer = await service.runtime.classify(query(*TEXTS, wish=CASCADED), request_id="r")
        truth = [text[0]["label"] for text in orjson.loads(answer.body)]
        judged = service.runtime.answers.judge("r", truth)
    assert (judged.variant_id, judged.right) == ("c0.99", 6)


async def test_shadow_answers_judge_the_cascade_and_not_its_level(base: BaseModel, tiny_model_dir: Path) -> None:
    opposite = engine_of(base, "dense", model=Opposite(engine_of(base, "half", 0.5).model))
    async with serving(base, tiny_model_dir, dense=opposite) as service:
        runtime = service.runtime
        runtime.dial.heed(Policy(accuracy_floor=0.0, shadow_fraction=1.0))
        await runtime.classify(query(*TEXTS, wish=CASCADED))
        async with asyncio.timeout(30):
            while not any(tally.texts for tally in runtime.tallies):
                await asyncio.sleep(0.01)
        seen = {tally.variant_id: (tally.texts, tally.agreed) for tally in runtime.tallies}
    assert seen == {"c0.99": (6, 3), "half": (0, 0)}, "what was handed on agrees, what the level answered does not"
    value = service.metrics.registry.get_sample_value
    for outcome in ("agreed", "flipped"):
        assert value("sparsedial_cascade_shadow_texts_total", {"sparsity": "0.5", "outcome": outcome}) == 3
        assert value("sparsedial_shadow_texts_total", {"sparsity": "0.5", "outcome": outcome}) is None


async def test_what_a_cascade_owes_counts_against_it_and_not_against_its_level(
    base: BaseModel, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any) -> Any:
        raise InferenceFailed("It broke.")

    async with serving(base, tiny_model_dir) as service:
        past = Deadline(at=asyncio.get_running_loop().time() - 1, limit_s=0.001, wanted=True)
        with pytest.raises(DeadlineExceeded):
            await service.runtime.classify(query(*TEXTS, wish=CASCADED), past)
        monkeypatch.setattr(service.runtime._batcher, "submit", broken)
        with pytest.raises(InferenceFailed):
            await service.runtime.classify(query(*TEXTS, wish=CASCADED))
        owed = {tally.variant_id: (tally.failed, tally.timed_out) for tally in service.runtime.tallies}
    assert {name: counts for name, counts in owed.items() if any(counts)} == {"c0.99": (1, 1)}


async def test_a_request_that_is_sure_of_all_its_texts_says_so(base: BaseModel, tiny_model_dir: Path) -> None:
    async with serving(base, tiny_model_dir) as service:
        surest = max(range(6), key=lambda index: float(service.alone[index][0]["score"]))
        answer = await service.runtime.classify(query(TEXTS[surest], wish=CASCADED))
        plain = await service.runtime.classify(query(TEXTS[surest], wish=Wish(sparsity=0.5)))
    assert answer.headers["x-escalated"] == "0 of 1"
    assert "x-not-escalated" not in answer.headers
    assert "x-escalated" not in plain.headers


async def test_a_trial_keeps_its_share_of_those_whom_the_policy_s_cascade_answers(
    base: BaseModel, tiny_model_dir: Path
) -> None:
    async with serving(base, tiny_model_dir) as service:
        usual = CascadeChoice(sparsity=0.5, agreement=0.99)
        service.runtime.dial.heed(Policy(accuracy_floor=0.0, shadow_fraction=0.0, cascade=usual))
        assert (await service.runtime.classify(query(*TEXTS))).headers["x-escalated"] == "3 of 6"
        service.runtime.dial.try_out(Trial(variant_id="dense", fraction=1.0))
        tried = await service.runtime.classify(query(*TEXTS))
        asked = await service.runtime.classify(query(*TEXTS, wish=Wish(cascade=True)))
    assert tried.headers["x-variant"] == "dense" and "x-escalated" not in tried.headers
    assert asked.headers["x-escalated"] == "3 of 6"


def test_a_cascade_that_is_switched_off_answers_only_who_names_its_level(engines: dict[str, Engine]) -> None:
    resident = list(engines.values())
    for wish in (Wish(), Wish(cascade=True)):
        assert cascade_for(wish, None, resident, USUAL, KNOWN, usual_off=True) is None
    named = cascade_for(Wish(sparsity=0.5, cascade=True), engines["half"], resident, USUAL, KNOWN, usual_off=True)
    assert named == Rule(cascade(0.98), engines["half"], engines["dense"])


async def test_a_cascade_is_switched_off_and_on_while_requests_come(base: BaseModel, tiny_model_dir: Path) -> None:
    policy = Policy(accuracy_floor=0.0, shadow_fraction=0.0, cascade=CascadeChoice(sparsity=0.5, agreement=0.99))
    async with serving(base, tiny_model_dir) as service:
        for off in (False, True, False):
            service.runtime.dial.heed(policy, cascade_off=off)
            for wish in (Wish(), Wish(cascade=True)):
                answer = await service.runtime.classify(query(*TEXTS, wish=wish))
                assert ("x-escalated" not in answer.headers) is off


async def test_the_policy_s_cascade_rests_while_its_level_is_turned_back(base: BaseModel, tiny_model_dir: Path) -> None:
    policy = Policy(accuracy_floor=0.0, shadow_fraction=0.0, cascade=CascadeChoice(sparsity=0.5, agreement=0.99))
    async with serving(base, tiny_model_dir) as service:
        service.runtime.dial.heed(policy, distrusted=frozenset({"half"}))
        for wish in (Wish(), Wish(cascade=True)):
            assert "x-escalated" not in (await service.runtime.classify(query(*TEXTS, wish=wish))).headers
        with pytest.raises(Invalid, match="was turned back"):
            await service.runtime.classify(query(*TEXTS, wish=Wish(sparsity=0.5, cascade=True)))
        assert [level.variant_id for level in service.runtime.dial.levels] == ["dense"]


def api_of(runtime: InferenceRuntime) -> FastAPI:
    return build_inference_api(runtime, desk_of(runtime), Settings(), CARD)


@pytest.mark.parametrize("route", ["/", "/predict"])
async def test_both_shapes_and_the_header_ask_for_a_cascade(base: BaseModel, tiny_model_dir: Path, route: str) -> None:
    inputs: Any = TEXTS if route == "/" else [[text] for text in TEXTS]
    async with (
        serving(base, tiny_model_dir) as service,
        httpx.AsyncClient(transport=httpx.ASGITransport(api_of(service.runtime)), base_url="http://replica") as client,
    ):
        parameters = {"sparsity": 0.5, "cascade": True}
        by_body = await client.post(route, json={"inputs": inputs, "parameters": parameters})
        headers = {"x-sparsity": "0.5", "x-cascade": "true"}
        by_header = await client.post(route, json={"inputs": inputs}, headers=headers)
        refused = await client.post(route, json={"inputs": inputs, "parameters": {"cascade": True}})
    assert by_body.headers["x-escalated"] == by_header.headers["x-escalated"] == "3 of 6"
    assert by_body.json() == by_header.json()
    assert refused.status_code == 422 and "name its sparsity" in refused.json()["detail"]
