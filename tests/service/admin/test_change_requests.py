from typing import Any

import pytest

from pruning.spec import Recover
from service.change_requests import MAX_BODY_BYTES, parse_spec
from tests.service.admin.admin_parts import JSON, Admin, is_problem


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


@pytest.mark.parametrize("canary", [1.5, True, "0.1", -0.1, []])
async def test_a_canary_that_is_no_share_is_refused(admin: Admin, canary: Any) -> None:
    answer = await admin.client.put("/admin/sparsity", json={"sparsity": 0.5, "canary": canary})
    assert is_problem(answer, 422, "validation") and "canary" in answer.json()["detail"]
