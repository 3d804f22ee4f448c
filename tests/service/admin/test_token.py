from pathlib import Path

import pytest

from service.admin import build_admin_api
from tests.service.admin.admin_parts import TOKEN, Admin, is_problem
from tests.service.control_parts import make_control

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


def test_an_empty_token_is_refused(tmp_path: Path) -> None:
    control = make_control(tmp_path)
    with pytest.raises(ValueError, match="empty"):
        build_admin_api(lambda: control.controller, "", frontier=list, cascades=list, scorers=("fisher",))
