import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from pruning.spec import Recover
from service.admin import build_admin_api
from service.change_requests import MAX_BODY_BYTES, parse_spec
from tests.service.control_parts import DENSE, FLOOR, Control, ModelReplica, id_of, make_control, until

TOKEN = "s3cret-tökèn"
AUTH = {b"authorization": b"Bearer " + TOKEN.encode()}
LEVELS = [{"variant": "half", "requested_sparsity": 0.5, "accuracy": 0.9}]
JSON = {"content-type": "application/json"}


@dataclass
class Admin:
    control: Control
    client: httpx.AsyncClient
    replica: ModelReplica

    async def put(self, body: Any, **params: Any) -> httpx.Response:
        return await self.client.put("/admin/sparsity", json=body, params=params)


def mounted(control: Control) -> FastAPI:
    """The admin application under ``/admin``, as Serve mounts it."""
    outer = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    outer.mount(
        "/admin",
        build_admin_api(
            lambda: control.controller,
            TOKEN,
            frontier=lambda: LEVELS,
            cascades=lambda levels: [{"cascade": "c1", "level": levels[0]["variant"]}],
            scorers=("taylor", "fisher", "magnitude"),
        ),
    )
    return outer


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Admin]:
    """The admin routes over a running controller with one replica that follows it."""
    control = make_control(tmp_path)
    await control.controller.start()
    control.clock.now += 4.0
    replica = ModelReplica(control.controller)
    following = asyncio.create_task(replica.follow())
    await until(lambda: bool(control.controller.view.status()["replicas"]))
    transport = httpx.ASGITransport(app=mounted(control))
    async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=AUTH) as client:
        yield Admin(control, client, replica)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await control.controller.stop()


def is_problem(answer: httpx.Response, status: int, error_type: str) -> bool:
    body = answer.json()
    return (
        answer.headers["content-type"] == "application/problem+json"
        and (answer.status_code, body["status"], body["error_type"]) == (status, status, error_type)
        and body["error"] == body["detail"]
    )


async def test_the_dial_says_what_is_served(admin: Admin) -> None:
    answer = await admin.client.get("/admin/sparsity")
    assert (answer.status_code, answer.headers["etag"]) == (200, '"1"')
    assert answer.json() == {
        "generation": 1,
        "variant": id_of(DENSE),
        "sparsity": 0.0,
        "achieved_sparsity": 0.0,
        "pattern": "structured",
        "scorer": "fisher",
        "recover": "reconstruct",
        "precision": "float32",
        "accuracy": 0.9,
        "accuracy_interval": [0.88, 0.92],
        "agreement": 0.97,
        "accuracy_floor": FLOOR,
        "mode": "manual",
        "governor": None,
        "cascade": None,
        "online": None,
        "previous_variant": None,
        "operation": None,
        "replicas": [{"id": "r1", "generation": 1, "variant": id_of(DENSE)}],
    }


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


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"sparsity": -0.1}', ["-0.1", "[0, 1)"]),
        (b'{"sparsity": 1}', ["1", "[0, 1)"]),
        (b'{"sparsity": 1.5}', ["1.5", "[0, 1)"]),
        (b'{"sparsity": 1e999}', ["inf", "[0, 1)"]),
        (b'{"sparsity": NaN}', ["nan", "[0, 1)"]),
        (b'{"sparsity": "0.5"}', ["'0.5'", "number", "[0, 1)"]),
        (b'{"sparsity": true}', ["True", "number"]),
        (b'{"sparsity": null}', ["None", "number"]),
        (b'{"sparsity": [0.5]}', ["[0.5]", "number"]),
        (b"{}", ['"sparsity" is missing']),
        (b'{"pattern": "structured"}', ['"sparsity" is missing']),
        (b'{"sparsity": 0.5, "speed": 9}', ["speed"]),
        (b'{"sparsity": 0.5, "scorer": "psychic"}', ["'psychic'", "fisher, magnitude, taylor"]),
        (b'{"sparsity": 0.5, "scorer": ["fisher"]}', ["scorer", "['fisher']"]),
        (b'{"sparsity": 0.5, "pattern": "plaid"}', ["'plaid'", "structured, unstructured, 2:4"]),
        (b'{"sparsity": 0.5, "pattern": null}', ["None", "structured, unstructured, 2:4"]),
        (b'{"sparsity": 0.5, "recover": "magic"}', ["'magic'", "none, reconstruct"]),
        (b'{"sparsity": 0.5, "precision": "int3"}', ["'int3'", "float32, float16, bfloat16, int8"]),
        (b'{"sparsity": 0.5, "pattern": "unstructured", "scorer": "obs"}', ["'obs'", "unstructured", "'fisher'"]),
        (b'{"sparsity": 0.5, "pattern": "2:4", "scorer": "obs"}', ["'obs'", "2:4", "'fisher'"]),
        (b'{"sparsity": 0.5, "rounds": 0}', ["rounds", "1 to 16", "0"]),
        (b'{"sparsity": 0.5, "rounds": 4.5}', ["rounds", "1 to 16", "4.5"]),
        (b'{"sparsity": 0.5, "pattern": "2:4", "rounds": 4}', ["rounds=4", "2:4", "leave it out"]),
        (b'{"sparsity": 0.5, "structures": "sublayers", "rounds": 4}', ["rounds=4", "sublayers", "leave one"]),
        (b"0.5", ["object", "0.5"]),
        (b"null", ["object"]),
        (b"[]", ["object"]),
    ],
)
async def test_a_value_out_of_range_is_named_beside_its_range(admin: Admin, body: bytes, words: list[str]) -> None:
    answer = await admin.client.put("/admin/sparsity", content=body, headers=JSON)
    assert is_problem(answer, 422, "validation")
    assert all(word in answer.json()["detail"] for word in words)
    assert admin.control.builder.asked == []


@pytest.mark.parametrize(
    ("body", "headers", "status", "kind"),
    [
        (b"", JSON, 400, "bad_request"),
        (b"{sparsity: 0.5}", JSON, 400, "bad_request"),
        (b'{"sparsity": "\xff"}', JSON, 400, "bad_request"),
        (b'{"sparsity": 0.5}', {"content-type": "text/plain"}, 415, "unsupported_media_type"),
        (b'{"sparsity": 0.5}', {}, 415, "unsupported_media_type"),
        (b" " * (MAX_BODY_BYTES + 1), JSON, 413, "too_large"),
        (b" " * 10_000_000, JSON, 413, "too_large"),
    ],
)
async def test_a_malformed_body_is_refused(
    admin: Admin, body: bytes, headers: dict[str, str], status: int, kind: str
) -> None:
    assert is_problem(await admin.client.put("/admin/sparsity", content=body, headers=headers), status, kind)


@pytest.mark.parametrize("wait", ["-1", "301", "nan", "soon", ""])
async def test_a_wait_out_of_range_is_refused_before_anything_starts(admin: Admin, wait: str) -> None:
    for answer in (
        await admin.put({"sparsity": 0.5}, wait=wait),
        await admin.client.post(f"/admin/rollback?wait={wait}"),
    ):
        assert is_problem(answer, 422, "validation")
    assert admin.control.builder.asked == []


REFUSED_AUTH: list[dict[bytes, bytes]] = [
    {},
    {b"authorization": b""},
    {b"authorization": b"Bearer"},
    {b"authorization": b"Bearer wrong"},
    {b"authorization": TOKEN.encode()},
    {b"authorization": b"Basic " + TOKEN.encode()},
    {b"authorization": b"Bearer " + TOKEN.encode() + b"x"},
]


GUARDED = [
    ("GET", "/admin/sparsity"),
    ("PUT", "/admin/sparsity"),
    ("POST", "/admin/rollback"),
    ("GET", "/admin/operations/x"),
    ("GET", "/admin/variants"),
    ("GET", "/admin/frontier"),
    ("GET", "/admin/openapi.json"),
    ("GET", "/admin/docs"),
    ("GET", "/admin/nowhere"),
    ("GET", "/admin/health/"),
    ("GET", "/admin//prometheus/targets"),
]


@pytest.mark.parametrize("headers", REFUSED_AUTH)
async def test_without_the_token_nothing_is_told_or_done(admin: Admin, headers: dict[bytes, bytes]) -> None:
    del admin.client.headers["authorization"]
    for method, path in GUARDED:
        answer = await admin.client.request(method, path, headers=headers)
        assert is_problem(answer, 401, "unauthorized"), path
        assert answer.headers["www-authenticate"] == "Bearer"
        assert TOKEN not in answer.text


@pytest.mark.parametrize(
    ("method", "path", "sent", "status"),
    [
        ("GET", "/sparsity", {}, 200),
        ("GET", "/health", {"headers": {"authorization": ""}}, 200),
        ("GET", "/docs", {}, 200),
        ("PUT", "/sparsity", {"content": b"{", "headers": JSON}, 400),
        ("GET", "/sparsity", {"headers": {"authorization": "Bearer wrong"}}, 401),
        ("GET", "/operations/nope", {}, 404),
        ("GET", "/nowhere", {}, 404),
        ("DELETE", "/sparsity", {}, 405),
        ("POST", "/rollback", {}, 409),
        ("PUT", "/sparsity", {"content": b" " * (MAX_BODY_BYTES + 1), "headers": JSON}, 413),
        ("PUT", "/sparsity", {"content": b"{}"}, 415),
        ("PUT", "/sparsity", {"json": {"sparsity": 2}}, 422),
        ("PUT", "/sparsity?wait=soon", {"json": {"sparsity": 0.5}}, 422),
    ],
)
async def test_every_answer_names_its_request_and_the_committed_variant(
    admin: Admin, method: str, path: str, sent: dict[str, Any], status: int
) -> None:
    sent = {**sent, "headers": {"x-request-id": "mine-1", **sent.get("headers", {})}}
    answer = await admin.client.request(method, f"/admin{path}", **sent)
    assert answer.status_code == status
    assert answer.headers["x-request-id"] == "mine-1"
    assert (answer.headers["x-generation"], answer.headers["x-variant"]) == ("1", id_of(DENSE))
    assert answer.headers["x-sparsity"] == "0.0000"


async def test_the_answer_to_a_change_names_what_it_committed(admin: Admin) -> None:
    answer = await admin.put({"sparsity": 0.5}, wait=30)
    assert answer.headers["x-variant"] == answer.json()["variant"] != id_of(DENSE)
    assert (answer.headers["x-generation"], answer.headers["x-sparsity"]) == ("2", "0.5000")


async def test_the_scheme_is_read_in_any_case(admin: Admin) -> None:
    headers = {b"authorization": b"bearer " + TOKEN.encode()}
    assert (await admin.client.get("/admin/sparsity", headers=headers)).status_code == 200


async def test_health_and_targets_need_no_token(admin: Admin) -> None:
    del admin.client.headers["authorization"]
    assert (await admin.client.get("/admin/health")).json() == {"status": "ok"}
    targets = (await admin.client.get("/admin/prometheus/targets")).json()
    assert [target["labels"] for target in targets] == [
        {"replica": "control", "deployment": "control"},
        {"replica": "r1", "deployment": "model"},
    ]


async def test_a_stopped_controller_is_not_healthy(admin: Admin) -> None:
    await admin.control.controller.stop()
    assert is_problem(await admin.client.get("/admin/health"), 503, "unhealthy")


async def test_what_does_not_exist_is_not_found(admin: Admin) -> None:
    assert is_problem(await admin.client.get("/admin/operations/nope"), 404, "not_found")
    assert (await admin.client.get("/admin/nowhere")).status_code == 404
    assert (await admin.client.delete("/admin/sparsity")).status_code == 405


async def test_variants_and_frontier_are_listed(admin: Admin) -> None:
    await admin.put({"sparsity": 0.5}, wait=30)
    variants = (await admin.client.get("/admin/variants")).json()["variants"]
    assert [variant["spec"]["sparsity"] for variant in variants] == [0.0, 0.5]
    assert (await admin.client.get("/admin/frontier")).json() == {
        "levels": [{**LEVELS[0], "online": None}],
        "cascades": [{"cascade": "c1", "level": "half", "online": None}],
    }


async def test_a_damaged_store_is_named(admin: Admin, tmp_path: Path) -> None:
    (tmp_path / "variants" / id_of(DENSE) / "manifest.json").write_text("{}")
    answer = await admin.client.get("/admin/sparsity")
    assert is_problem(answer, 500, "store")
    assert id_of(DENSE) in answer.json()["detail"]
    assert answer.headers["x-variant"] == id_of(DENSE), "read from memory, not from the store"


async def test_the_documentation_knows_its_prefix_and_the_body(admin: Admin) -> None:
    page = await admin.client.get("/admin/docs")
    assert (page.status_code, "/admin/openapi.json" in page.text) == (200, True)
    schema = (await admin.client.get("/admin/openapi.json")).json()
    assert schema["servers"] == [{"url": "/admin"}]
    body = schema["paths"]["/sparsity"]["put"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["properties"]["scorer"]["enum"] == ["fisher", "magnitude", "taylor"]


def test_an_empty_token_is_refused(tmp_path: Path) -> None:
    control = make_control(tmp_path)
    with pytest.raises(ValueError, match="empty"):
        build_admin_api(lambda: control.controller, "", frontier=list, cascades=list, scorers=("fisher",))


async def test_a_controller_that_has_not_started_refuses_in_words_and_names_no_variant(tmp_path: Path) -> None:
    transport = httpx.ASGITransport(app=mounted(make_control(tmp_path)))
    async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=AUTH) as client:
        answer = await client.get("/admin/sparsity")
    assert is_problem(answer, 503, "unhealthy")
    assert answer.headers["x-request-id"] and "x-generation" not in answer.headers


def test_the_ladders_recovery_is_the_usual_one_of_its_own_pattern_alone() -> None:
    usual = {"scorer": "fisher", "pattern": "structured", "precision": "float32", "recover": "sequential"}
    assert parse_spec({"sparsity": 0.5}, ("fisher",), usual).recover is Recover.SEQUENTIAL
    assert parse_spec({"sparsity": 0.5, "pattern": "structured"}, ("fisher",), usual).recover is Recover.SEQUENTIAL
    assert parse_spec({"sparsity": 0.5, "recover": "none"}, ("fisher",), usual).recover is Recover.NONE
    assert parse_spec({"sparsity": 0.5, "pattern": "unstructured"}, ("fisher",), usual).recover is Recover.NONE


def test_the_ladders_rounds_are_the_usual_ones_of_its_own_pattern_alone() -> None:
    usual = {"scorer": "fisher", "pattern": "structured", "precision": "float32", "rounds": 4}
    assert parse_spec({"sparsity": 0.5}, ("fisher",), usual).rounds == 4
    assert parse_spec({"sparsity": 0.5, "rounds": 1}, ("fisher",), usual).rounds == 1
    assert parse_spec({"sparsity": 0.5, "pattern": "2:4"}, ("fisher",), usual).rounds == 1


def test_the_ladders_rounds_are_the_usual_ones_of_whole_heads_and_neurons_alone() -> None:
    usual = {"scorer": "fisher", "pattern": "structured", "precision": "float32", "rounds": 4}
    assert parse_spec({"sparsity": 0.5, "structures": "heads+neurons"}, ("fisher",), usual).rounds == 4
    assert parse_spec({"sparsity": 0.5, "structures": "sublayers"}, ("fisher",), usual).rounds == 1


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


@pytest.mark.parametrize("canary", [1.5, True, "0.1", -0.1, []])
async def test_a_canary_that_is_no_share_is_refused(admin: Admin, canary: Any) -> None:
    answer = await admin.client.put("/admin/sparsity", json={"sparsity": 0.5, "canary": canary})
    assert is_problem(answer, 422, "validation") and "canary" in answer.json()["detail"]


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
