from pathlib import Path
from typing import Any

import httpx
import pytest

from service.change_requests import MAX_BODY_BYTES
from tests.service.admin.admin_parts import AUTH, JSON, LEVELS, Admin, is_problem, mounted
from tests.service.control_parts import DENSE, FLOOR, id_of, make_control


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


async def test_a_controller_that_has_not_started_refuses_in_words_and_names_no_variant(tmp_path: Path) -> None:
    transport = httpx.ASGITransport(app=mounted(make_control(tmp_path)))
    async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=AUTH) as client:
        answer = await client.get("/admin/sparsity")
    assert is_problem(answer, 503, "unhealthy")
    assert answer.headers["x-request-id"] and "x-generation" not in answer.headers
