from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.admin import build_admin_api
from service.protocol import ReplicaReport
from service.tally import Tally
from tests.service.control_parts import DENSE, id_of, make_control, report_of
from tests.service.test_plan import row

ROWS = [
    row(0.0, 0.9, 8.0, variant=id_of(DENSE), rows_digest="now"),
    row(0.5, 0.7, 9.0, variant="old", rows_digest="before"),
    row(0.5, 0.87, 4.0, rows_digest="now"),
]


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    control = make_control(tmp_path)
    await control.controller.start()
    seen = Tally(variant_id=id_of(DENSE), answered=200, durations=(0,) * 10 + (200,))
    control.controller.view.evidence.hear(with_tallies(report_of(), seen))
    api = build_admin_api(
        lambda: control.controller,
        "t",
        frontier=lambda: ROWS,
        cascades=lambda levels: [],
        scorers=("fisher", "taylor"),
        usual={"scorer": "fisher"},
    )
    headers = {"authorization": "Bearer t"}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(api), base_url="http://control", headers=headers
    ) as client:
        yield client
    assert control.builder.in_use == []
    await control.controller.stop()


def with_tallies(report: ReplicaReport, *tallies: Tally) -> ReplicaReport:
    return replace(report, tallies=tallies)


async def plan(client: httpx.AsyncClient, body: Any) -> httpx.Response:
    return await client.post("/plan", json=body)


async def test_a_level_is_predicted_from_those_judged_on_the_same_rows(client: httpx.AsyncClient) -> None:
    found = (await plan(client, {"sparsity": 0.25})).json()
    assert found["accuracy"] == pytest.approx(0.885)
    assert (found["exact"], found["scorer"], found["accuracy_floor"]) == (False, "fisher", 0.85)
    assert found["p99_ms"] == pytest.approx((20.0 + 10.0) / 2)
    assert (await plan(client, {"sparsity": 0.5})).json()["variant"] == "v0.5"


async def test_bounds_choose_among_the_loaded_levels(client: httpx.AsyncClient) -> None:
    found = (await plan(client, {"p99_ms": 1000, "accuracy": 0.86})).json()
    assert (found["variant"], found["resident"]) == (id_of(DENSE), True)
    assert "the densest of 1 levels" in found["reason"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ([], "object"),
        ({}, '"sparsity" is missing'),
        ({"sparsity": 1.5}, "[0, 1)"),
        ({"sparsity": 0.5, "scorer": "psychic"}, "known: fisher, taylor"),
        ({"sparsity": 0.9}, "lies between no two levels"),
        ({"sparsity": 0.5, "p99_ms": 5}, "not both; beside them: ['sparsity']"),
        ({"p99_ms": None}, "needs a number"),
        ({"p99_ms": 0}, "p99_ms must be a number above 0; got 0"),
        ({"p99_ms": True}, "p99_ms must be"),
        ({"p99_ms": 10**400}, "p99_ms must be a number above 0; got 1000"),
        ({"accuracy": 1.5}, "accuracy must be a number above 0, 1 at most; got 1.5"),
        ({"accuracy": "0.9"}, "accuracy must be"),
        ({"accuracy": 0.99}, "the best, 0, has 0.9000"),
        ({"p99_ms": 1}, "takes 20.0"),
    ],
)
async def test_what_cannot_be_planned_is_refused_in_words(client: httpx.AsyncClient, body: Any, words: str) -> None:
    answer = await plan(client, body)
    assert answer.status_code == 422
    assert words in answer.json()["detail"]
