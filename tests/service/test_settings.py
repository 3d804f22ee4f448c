import ast
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pruning.spec import Precision, Recover
from service import settings as module
from service.settings import DEFAULT_LEVELS, Device, EngineName, Ingress, Settings

pytestmark = pytest.mark.usefixtures("own_environment")

EXAMPLES: dict[str, tuple[str, Any]] = {
    "model": ("./bert", "./bert"),
    "host": ("0.0.0.0", "0.0.0.0"),
    "port": ("9000", 9000),
    "replicas": ("2", 2),
    "max_replicas": ("3", 3),
    "replicas_per_node": ("2", 2),
    "target_inflight": ("0.5", 0.5),
    "scale_up_s": ("0", 0.0),
    "scale_down_s": ("90", 90.0),
    "store": ("/s", Path("/s")),
    "sparsity": ("0.5", 0.5),
    "device": ("cuda", Device.CUDA),
    "engine": ("openvino", EngineName.OPENVINO),
    "train": ("t.csv", Path("t.csv")),
    "eval": ("e.csv", Path("e.csv")),
    "levels": ("0.5, 0.2", (0.0, 0.2, 0.5)),
    "scorer": ("taylor", "taylor"),
    "pattern": ("unstructured", "unstructured"),
    "precision": ("int8, bfloat16", (Precision.INT8, Precision.BFLOAT16)),
    "recover": ("sequential", Recover.SEQUENTIAL),
    "rounds": ("4", 4),
    "accuracy_floor": ("0.9", 0.9),
    "max_batch_tokens": ("8", 8),
    "max_batch_ms": ("7.5", 7.5),
    "max_queue_tokens": ("9", 9),
    "max_queue_s": ("0.5", 0.5),
    "max_client_batch_size": ("10", 10),
    "max_text_characters": ("11", 11),
    "max_body_bytes": ("12", 12),
    "request_timeout_s": ("1.5", 1.5),
    "drain_timeout_s": ("0", 0.0),
    "threads": ("3", 3),
    "ingress": ("proxy", Ingress.PROXY),
    "keep_variants": ("5", 5),
    "gpus_per_replica": ("0.5", 0.5),
    "address": ("auto", "auto"),
    "admin_token": ("t", "t"),
    "api_key": ("k", "k"),
}
"""A value of each setting, as a variable holds it and as the service reads it."""


def test_every_field_says_what_it_means() -> None:
    (body,) = [node.body for node in ast.parse(Path(module.__file__).read_text()).body if is_settings(node)]
    documented = {
        field.target.id
        for field, below in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
    }
    assert documented == set(Settings.model_fields)


def is_settings(node: ast.stmt) -> bool:
    return isinstance(node, ast.ClassDef) and node.name == "Settings"


@pytest.mark.parametrize("field", sorted(Settings.model_fields))
def test_every_field_is_a_variable(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, expected = EXAMPLES[field]
    assert getattr(Settings(), field) != expected
    monkeypatch.setenv(f"SPARSEDIAL_{field.upper()}", text)
    value = getattr(Settings(), field)
    assert (value.get_secret_value() if field in ("admin_token", "api_key") else value) == expected


@pytest.mark.parametrize("field", sorted(Settings.model_fields))
def test_an_empty_variable_is_not_set(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"SPARSEDIAL_{field.upper()}", "")
    assert getattr(Settings(), field) == Settings.model_fields[field].default


def test_a_value_given_goes_before_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSEDIAL_PORT", "9000")
    assert Settings(port=9001).port == 9001


@pytest.mark.parametrize("unknown", [{"prot": 1}, {"SPARSEDIAL_PORT": 1}, {"sparsedial_port": 1}])
def test_an_unknown_field_is_refused(unknown: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(unknown))):
        Settings(**unknown)


def test_settings_never_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "levels"),
    [
        ("0,0.3,0.5", (0.0, 0.3, 0.5)),
        ("0.5,0.3", (0.0, 0.3, 0.5)),
        (" .3 , 0.3,", (0.0, 0.3)),
        ("", (0.0,)),
        ([0.9, "0.1"], (0.0, 0.1, 0.9)),
        ((), (0.0,)),
    ],
)
def test_levels_are_sorted_and_always_hold_dense(given: Any, levels: tuple[float, ...]) -> None:
    assert Settings(levels=given).levels == levels


def test_the_default_ladder_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().levels == DEFAULT_LEVELS == Settings(levels=DEFAULT_LEVELS).levels


@pytest.mark.parametrize(
    "given", ["1", "-0.1", "nan", "inf", "half", "0.3;0.5", [None], [[0.5]], 0.5, None, {"0.5": 1}, [1.5]]
)
def test_bad_levels_are_refused(given: Any) -> None:
    with pytest.raises(ValidationError, match="levels"):
        Settings(levels=given)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("sparsity", value) for value in (-0.1, 1, "nan", "half")),
        *(("accuracy_floor", value) for value in (-0.1, 1.1, "nan")),
        *(("port", value) for value in (0, 65536, "tcp://10.0.0.1:8000")),
        *(("request_timeout_s", value) for value in (0, "inf", "nan")),
        *((field, value) for field in ("max_queue_s", "max_batch_ms") for value in (0, "inf", "nan")),
        *(("drain_timeout_s", value) for value in (-1, "inf", "nan")),
        *((field, value) for field in ("scale_up_s", "scale_down_s") for value in (-1, "inf", "nan")),
        *(("target_inflight", value) for value in (0, "inf", "nan")),
        *((field, 0) for field in ("replicas", "max_replicas", "replicas_per_node")),
        *((field, 0) for field in ("max_batch_tokens", "max_queue_tokens", "threads")),
        *((field, 0) for field in ("max_client_batch_size", "max_text_characters", "max_body_bytes")),
        *(("device", value) for value in ("tpu", "")),
        ("ingress", "nginx"),
        ("admin_token", ""),
        ("admin_token", " \n"),
        ("api_key", ""),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        Settings(**{field: value})


def test_bounds_of_replicas_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValidationError, match="max_replicas 2 is less than replicas 3; raise it or leave it out"):
        Settings(replicas=3, max_replicas=2)
    assert Settings(replicas=3, max_replicas=3).most_replicas == Settings(replicas=3).most_replicas == 3


@pytest.mark.parametrize(("most", "per_node", "expected"), [(None, None, 2), (5, None, 5), (5, 3, 3), (None, 3, 2)])
def test_a_machine_gets_no_more_replicas_than_there_are_or_than_it_may(
    most: int | None, per_node: int | None, expected: int
) -> None:
    assert Settings(replicas=2, max_replicas=most, replicas_per_node=per_node).most_on_node == expected


def test_secrets_are_stripped_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSEDIAL_ADMIN_TOKEN", "adm1n\n")
    settings = Settings(api_key=" k3y ")
    assert settings.admin_token is not None and settings.admin_token.get_secret_value() == "adm1n"
    assert settings.api_key is not None and settings.api_key.get_secret_value() == "k3y"
    for shown in (repr(settings), str(settings), settings.model_dump_json()):
        assert "adm1n" not in shown and "k3y" not in shown


def test_the_key_that_asks_may_not_be_the_token_that_dials() -> None:
    with pytest.raises(ValidationError, match="must differ") as caught:
        Settings(api_key="s3cret", admin_token="s3cret ")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("device", "precision", "only"), [(Device.CUDA, Precision.INT8, "cpu"), (Device.CPU, Precision.FLOAT16, "cuda")]
)
def test_a_precision_that_the_device_does_not_answer_in_is_refused_with_what_to_use(
    device: Device, precision: Precision, only: str
) -> None:
    with pytest.raises(ValidationError, match=f"only {only} answers in precision {precision}; use device {only}, or"):
        Settings(device=device, precision=(Precision.FLOAT32, precision))


def test_precisions_are_at_least_one_and_all_for_one_device() -> None:
    with pytest.raises(ValidationError, match="no precision is named; known: float32, float16, bfloat16, int8"):
        Settings(precision=())
    with pytest.raises(ValidationError, match="no device answers in int8 and in float16"):
        Settings(precision=(Precision.INT8, Precision.FLOAT16))
    with pytest.raises(ValidationError, match="unknown precision 'float99'; known: float32, float16"):
        Settings.model_validate({"precision": "float32,float99"})


def test_openvino_is_refused_where_it_does_not_compute() -> None:
    with pytest.raises(ValidationError, match="openvino computes on CPUs alone; use device cpu, or engine torch"):
        Settings(engine=EngineName.OPENVINO, device=Device.CUDA)
    with pytest.raises(ValidationError, match="int8 is computed by torch alone; use engine torch or auto"):
        Settings(engine=EngineName.OPENVINO, precision=(Precision.FLOAT32, Precision.INT8))
    with pytest.raises(ValidationError, match="'auto', 'torch' or 'openvino'"):
        Settings.model_validate({"engine": "onnx"})
    assert not Settings(engine=EngineName.OPENVINO).wants_gpu(1)


@pytest.mark.parametrize(
    ("device", "precision", "gpus", "expected"),
    [
        (Device.AUTO, Precision.FLOAT32, 0, False),
        (Device.AUTO, Precision.FLOAT32, 1, True),
        (Device.AUTO, Precision.INT8, 1, False),
        (Device.AUTO, Precision.FLOAT16, 0, True),
        (Device.CUDA, Precision.FLOAT16, 1, True),
        (Device.CPU, Precision.FLOAT32, 1, False),
        (Device.CUDA, Precision.FLOAT32, 0, True),
    ],
)
def test_gpus_are_wanted_where_told_or_where_the_ladder_is_computed_there(
    device: Device, precision: Precision, gpus: float, expected: bool
) -> None:
    assert Settings(device=device, precision=(precision,)).wants_gpu(gpus) is expected
