from typing import Any

import pytest

from tests.service.admin.admin_parts import Admin, is_problem
from tests.service.control_parts import FLOOR


async def test_the_policy_is_read_changed_in_part_and_told_to_replicas(admin: Admin) -> None:
    usual = (await admin.client.get("/admin/policy")).json()
    assert (usual["mode"], usual["accuracy_floor"]) == ("manual", FLOOR)
    answer = await admin.client.put("/admin/policy", json={"max_sparsity": 0.6, "accuracy_floor": 0.5})
    assert answer.json() == {**usual, "max_sparsity": 0.6, "accuracy_floor": 0.5}
    assert (await admin.client.get("/admin/policy")).json() == answer.json()
    assert (await admin.replica.ask()).policy.max_sparsity == 0.6
    assert (await admin.client.get("/admin/sparsity")).json()["accuracy_floor"] == 0.5


@pytest.mark.parametrize(
    "members",
    [{"canary_fraction": 1.5}, {"min_sparsity": 0.7, "max_sparsity": 0.2}, {"accuracy_floor": 0.95}, {"x": 1}],
)
async def test_a_policy_that_contradicts_itself_changes_nothing(admin: Admin, members: dict[str, Any]) -> None:
    before = (await admin.client.get("/admin/policy")).json()
    assert is_problem(await admin.client.put("/admin/policy", json=members), 422, "validation")
    assert (await admin.client.get("/admin/policy")).json() == before


async def test_a_lowered_floor_lets_through_what_was_refused(admin: Admin) -> None:
    admin.control.builder.accuracy = FLOOR - 0.1
    refused = await admin.client.put("/admin/sparsity?wait=30", json={"sparsity": 0.5})
    assert is_problem(refused, 422, "accuracy_floor")
    await admin.client.put("/admin/policy", json={"accuracy_floor": 0.5})
    answer = await admin.client.put("/admin/sparsity?wait=30", json={"sparsity": 0.5})
    assert answer.json()["phase"] == "committed"


async def test_a_policy_that_another_operator_changed_meanwhile_is_left_alone(admin: Admin) -> None:
    seen = (await admin.client.get("/admin/policy")).headers["etag"]
    first = await admin.client.put("/admin/policy", json={"max_sparsity": 0.6}, headers={"if-match": seen})
    assert first.status_code == 200
    late = await admin.client.put("/admin/policy", json={"max_sparsity": 0.7}, headers={"if-match": seen})
    assert is_problem(late, 412, "precondition")
    assert first.headers["etag"].strip('"') in late.json()["detail"]
    again = {"if-match": first.headers["etag"]}
    assert (await admin.client.put("/admin/policy", json={"max_sparsity": 0.7}, headers=again)).status_code == 200
    for etag in ("x", "7", '"7"'):
        refused = await admin.client.put("/admin/policy", json={}, headers={"if-match": etag})
        assert is_problem(refused, 400, "bad_request")
    assert (await admin.client.put("/admin/policy", json={}, headers={"if-match": "*"})).status_code == 200
