from typing import Any

import pytest

from tests.service.admin.admin_parts import Admin, is_problem
from tests.service.control_parts import DENSE, id_of


async def test_a_change_that_is_waited_for_is_answered_when_committed(admin: Admin) -> None:
    answer = await admin.put({"sparsity": 0.5}, wait=30)
    body = answer.json()
    assert answer.status_code == 200
    assert answer.headers["location"] == f"/admin/operations/{body['id']}"
    durations = body.pop("durations_s")
    assert set(durations) == {"build", "prepare", "total"}
    assert body.pop("created_at").endswith("Z") and body.pop("finished_at").endswith("Z")
    assert body == {
        "id": body["id"],
        "kind": "swap",
        "phase": "committed",
        "sparsity": 0.5,
        "pattern": "structured",
        "scorer": "fisher",
        "recover": "reconstruct",
        "precision": "float32",
        "variant": body["variant"],
        "achieved_sparsity": 0.5,
        "accuracy": 0.9,
        "generation": 2,
        "asked_by": "operator",
        "reason": None,
        "trial": None,
        "canary_fraction": 0.0,
        "error": None,
        "error_type": None,
    }
    assert admin.replica.variant_id == body["variant"]
    assert (await admin.client.get("/admin/sparsity")).headers["etag"] == '"2"'


async def test_a_change_that_is_not_waited_for_is_accepted_and_can_be_followed(admin: Admin) -> None:
    admin.control.builder.gate.clear()
    answer = await admin.put({"sparsity": 0.5})
    assert (answer.status_code, answer.json()["phase"]) == (202, "building")
    assert answer.json()["finished_at"] is None
    still = await admin.put({"sparsity": 0.5}, wait=0.01)
    assert (still.status_code, still.headers["location"]) == (202, answer.headers["location"])
    assert (await admin.client.get("/admin/sparsity")).json()["operation"]["id"] == answer.json()["id"]
    admin.control.builder.gate.set()
    await admin.control.controller.wait(answer.json()["id"], 60.0)
    done = await admin.client.get(answer.headers["location"])
    assert (done.status_code, done.json()["phase"]) == (200, "committed")
    again = await admin.put({"sparsity": 0.5})
    assert (again.status_code, again.json()["id"]) == (200, answer.json()["id"])
    assert (await admin.client.get("/admin/sparsity")).json()["generation"] == 2


async def test_a_change_below_the_floor_is_refused_with_the_operation(admin: Admin) -> None:
    admin.control.builder.accuracy = 0.7
    answer = await admin.put({"sparsity": 0.9}, wait=30)
    assert is_problem(answer, 422, "accuracy_floor")
    body = answer.json()
    assert (body["phase"], body["sparsity"], body["accuracy"]) == ("failed", 0.9, 0.7)
    assert "0.7000" in body["detail"] and "0.8500" in body["detail"]
    seen = await admin.client.get(f"/admin/operations/{body['id']}")
    assert (seen.status_code, seen.json()["error_type"]) == (200, "accuracy_floor")
    assert (await admin.client.get("/admin/sparsity")).json()["generation"] == 1


async def test_another_change_meanwhile_is_a_conflict(admin: Admin) -> None:
    admin.control.builder.gate.clear()
    running = (await admin.put({"sparsity": 0.5})).json()["id"]
    answer = await admin.put({"sparsity": 0.6})
    assert is_problem(answer, 409, "conflict")
    assert (answer.json()["operation"], running in answer.json()["detail"]) == (running, True)


async def test_rollback_and_its_lack_of_a_previous_variant(admin: Admin) -> None:
    assert is_problem(await admin.client.post("/admin/rollback"), 409, "conflict")
    await admin.put({"sparsity": 0.5}, wait=30)
    answer = await admin.client.post("/admin/rollback", params={"wait": 30})
    assert (answer.status_code, answer.json()["kind"], answer.json()["generation"]) == (200, "rollback", 3)


async def test_a_rollback_takes_back_the_change_that_runs_and_says_so(admin: Admin) -> None:
    admin.control.builder.gate.clear()
    running = (await admin.put({"sparsity": 0.5})).json()["id"]
    answer = await admin.client.post("/admin/rollback", params={"wait": 30})
    body = answer.json()
    assert (answer.status_code, body["id"], body["kind"]) == (200, running, "swap")
    assert (body["phase"], body["error_type"]) == ("rolled_back", "cancelled")
    assert answer.headers["location"].endswith(f"/operations/{running}")


async def test_the_answer_to_a_change_names_what_it_committed(admin: Admin) -> None:
    answer = await admin.put({"sparsity": 0.5}, wait=30)
    assert answer.headers["x-variant"] == answer.json()["variant"] != id_of(DENSE)
    assert (answer.headers["x-generation"], answer.headers["x-sparsity"]) == ("2", "0.5000")


@pytest.mark.parametrize("route", ["PUT /admin/sparsity", "POST /admin/rollback"])
async def test_a_change_made_for_an_old_generation_is_refused(admin: Admin, route: str) -> None:
    method, path = route.split()
    old = (await admin.client.get("/admin/sparsity")).headers["etag"]
    await admin.client.put("/admin/sparsity?wait=30", json={"sparsity": 0.5}, headers={"if-match": old})
    answer = await admin.client.request(method, path, json={"sparsity": 0.7}, headers={"if-match": old})
    assert is_problem(answer, 412, "precondition") and answer.json()["generation"] == 2
    answer = await admin.client.request(method, path, json={"sparsity": 0.7}, headers={"if-match": "2"})
    assert is_problem(answer, 400, "bad_request")
    answer = await admin.client.request(method, path, json={"sparsity": 0.7}, headers={"if-match": '"2"'})
    assert answer.status_code == 202


@pytest.mark.parametrize(("canary", "fraction"), [(None, 0.0), (False, 0.0), (0.25, 0.25)])
async def test_a_change_says_how_it_is_tried(admin: Admin, canary: Any, fraction: float) -> None:
    answer = await admin.client.put("/admin/sparsity", json={"sparsity": 0.5, "canary": canary})
    assert answer.json()["canary_fraction"] == fraction


async def test_the_phases_of_a_change_are_events(admin: Admin) -> None:
    await admin.client.put("/admin/sparsity?wait=30", json={"sparsity": 0.5})
    await admin.client.put("/admin/policy", json={"max_sparsity": 0.5})
    told = []
    async for event in admin.control.controller.view.log.follow(0, silence_s=1.0):
        assert event is not None
        told.append(event.data.get("phase", event.kind))
        if event.kind == "policy":
            break
    assert told == ["building", "preparing", "committed", "policy"]
