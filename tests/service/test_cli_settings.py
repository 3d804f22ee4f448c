import json
from pathlib import Path

import pytest

from service.settings import Settings
from tests.service.cli_parts import refused, run

pytestmark = pytest.mark.usefixtures("own_environment")


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """What ``serve`` would have served with."""
    seen: list[Settings] = []

    def launch(settings: Settings, *, as_json: bool) -> int:
        seen.append(settings)
        return 0

    monkeypatch.setattr("service.launcher.launch", launch)
    return seen


def test_variables_reach_the_settings_and_flags_go_before_them(launched: list[Settings], tmp_path: Path) -> None:
    variables = {
        "SPARSEDIAL_MODEL": "some/model",
        "SPARSEDIAL_PORT": "9001",
        "SPARSEDIAL_LEVELS": "0.2,0.4",
        "SPARSEDIAL_STORE": str(tmp_path),
        "SPARSEDIAL_ACCURACY_FLOOR": "0.8",
        "SPARSEDIAL_INGRESS": "proxy",
        "SPARSEDIAL_THREADS": "",
    }
    assert run("serve", "--port", "9002", "--levels", "0.6", **variables).exit_code == 0
    (settings,) = launched
    assert (settings.model, settings.port, settings.levels) == ("some/model", 9002, (0.0, 0.6))
    assert (settings.store, settings.accuracy_floor, settings.ingress) == (tmp_path, 0.8, "proxy")
    assert settings.threads is None


def test_variables_reach_prepare(tiny_model_dir: Path, tiny_rows: tuple[Path, Path], tmp_path: Path) -> None:
    variables = {
        "SPARSEDIAL_MODEL": str(tiny_model_dir),
        "SPARSEDIAL_TRAIN": str(tiny_rows[0]),
        "SPARSEDIAL_EVAL": str(tiny_rows[1]),
        "SPARSEDIAL_STORE": str(tmp_path),
        "SPARSEDIAL_LEVELS": "0.2",
        "SPARSEDIAL_SCORER": "magnitude",
    }
    result = run("prepare", "--json", **variables)
    assert result.exit_code == 0, result.output
    levels = json.loads(result.stdout)["levels"]
    assert [(level["requested_sparsity"], level["scorer"]) for level in levels] == [
        (0.0, "magnitude"),
        (0.2, "magnitude"),
    ]


@pytest.mark.parametrize(
    ("arguments", "variables", "words"),
    [
        (["--port", "0"], {}, ["port (SPARSEDIAL_PORT)", "got 0"]),
        (["--sparsity", "-1"], {}, ["sparsity (SPARSEDIAL_SPARSITY)", "got -1"]),
        ([], {"SPARSEDIAL_ENGINE": "onnx"}, ["engine (SPARSEDIAL_ENGINE)", "'torch' or 'openvino'", "got 'onnx'"]),
        ([], {"SPARSEDIAL_PORT": "tcp://10.0.0.1:8000"}, ["port (SPARSEDIAL_PORT)", "'tcp://10.0.0.1:8000'"]),
        ([], {"SPARSEDIAL_REPLICAS": "0", "SPARSEDIAL_PORT": "x"}, ["SPARSEDIAL_REPLICAS", "SPARSEDIAL_PORT"]),
    ],
)
def test_a_bad_setting_is_named_with_its_variable_and_value(
    arguments: list[str], variables: dict[str, str], words: list[str], launched: list[Settings]
) -> None:
    result = run("serve", *arguments, **variables)
    assert refused(result, 2, *words)
    assert "pydantic" not in result.stderr
    assert launched == []


def test_one_secret_for_both_is_refused_and_not_repeated(launched: list[Settings]) -> None:
    result = run("serve", SPARSEDIAL_API_KEY="s3cret", SPARSEDIAL_ADMIN_TOKEN="s3cret")
    assert refused(result, 2, "admin_token and api_key must differ")
    assert "s3cret" not in result.output


def test_a_misspelt_variable_is_pointed_out_and_a_foreign_one_is_not(launched: list[Settings]) -> None:
    result = run("serve", SPARSEDIAL_MAX_BATCH_TOKEN="1", SPARSEDIAL_SERVICE_HOST="10.0.0.1", SPARSEDIAL_URL="x")
    assert result.exit_code == 0
    (line,) = result.stderr.splitlines()
    assert "SPARSEDIAL_MAX_BATCH_TOKEN has no effect" in line and "SPARSEDIAL_MAX_BATCH_TOKENS?" in line
