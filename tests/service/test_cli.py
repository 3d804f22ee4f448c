import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from pruning.cache import CalibrationCache
from pruning.encoder import BaseModel, load_base_model
from pruning.random_model import SHAPES
from pruning.scores import CHOICES, SCORERS
from pruning.spec import PruneSpec
from pruning.variants import VariantStore
from service.cli import app
from service.options import SCORER_HELP
from service.plan import plan_level
from service.policy import Policy
from service.running import leave_note
from service.settings import Settings
from service.version import VERSION
from tests.conftest import write_rows
from tests.service.control_parts import first_state
from tests.service.fake_admin import (
    BUILDING_STATE,
    COMMITTED,
    FAILED,
    TAKEN_BACK,
    FakeAdmin,
    building,
    problem,
    serving,
    status_of,
)
from tests.service.test_plan import FACTS, ROWS

COMMANDS = [
    "prepare",
    "prune",
    "frontier",
    "pretrain",
    "import",
    "recover",
    "bench",
    "compare",
    "serve",
    "dial",
    "plan",
    "rollback",
    "status",
    "policy",
]
Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting and no cache of whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith("SPARSEDIAL_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def run(*arguments: object, **variables: str) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=variables, catch_exceptions=False)


def refused(result: Result, exit_code: int, *words: str) -> bool:
    """Tell whether a command ended as it should: the code, every word on stderr, nothing on stdout, no traceback."""
    assert (result.exit_code, result.stdout) == (exit_code, ""), result.output
    assert "Traceback" not in result.stderr
    missing = [word for word in words if word not in result.stderr]
    assert not missing, f"{missing} not in: {result.stderr}"
    return True


@pytest.fixture(scope="module")
def given(tiny_model_dir: Path, tiny_rows: tuple[Path, Path]) -> list[object]:
    """The options that name the tiny model's rows."""
    return ["--train", tiny_rows[0], "--eval", tiny_rows[1]]


@pytest.fixture(scope="module")
def first_run(
    tiny_model_dir: Path, given: list[object], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Result]:
    """A store, and what the command that prepared it answered."""
    store = tmp_path_factory.mktemp("prepared")
    return store, run("prepare", tiny_model_dir, *given, "--store", store, "--levels", "0.3,0.5", "--json")


@pytest.fixture
def store(first_run: tuple[Path, Result], tmp_path: Path) -> Path:
    """A prepared store of the test's own."""
    copy = tmp_path / "store"
    shutil.copytree(first_run[0], copy)
    return copy


# --- prepare, prune, frontier -------------------------------------------------------------------------------------


def test_prepare_answers_one_json_document_with_an_entry_per_level(first_run: tuple[Path, Result]) -> None:
    store, result = first_run
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["store"] == str(store)
    assert [level["requested_sparsity"] for level in document["levels"]] == [0.0, 0.3, 0.5]
    for level in document["levels"]:
        assert level["achieved_sparsity"] == pytest.approx(level["requested_sparsity"], abs=0.1)
        assert level["accuracy_interval"][0] <= level["accuracy"] <= level["accuracy_interval"][1]
        assert level["speedup"] > 0 and level["ideal_speedup"] >= 1
    assert "scoring the model" in result.stderr


def test_progress_in_a_log_is_a_line_now_and_then(first_run: tuple[Path, Result]) -> None:
    lines = [line for line in first_run[1].stderr.splitlines() if line.startswith("scoring the model: ")]
    assert 1 <= len(lines) <= 11
    assert lines[-1].startswith("scoring the model: 100 %")
    assert "building the ladder: level 0.3, 2 of 3: cut" in first_run[1].stderr


def test_a_second_prepare_scores_builds_and_times_nothing(
    store: Path, tiny_model_dir: Path, given: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("done again")

    monkeypatch.setattr(CalibrationCache, "put", refuse)
    monkeypatch.setattr(VariantStore, "put", refuse)
    monkeypatch.setattr("service.ladder.measure_side_by_side", refuse)
    result = run("prepare", tiny_model_dir, *given, "--store", store, "--levels", "0,0.3,0.5", "--json")
    assert result.exit_code == 0, result.output
    assert [level["requested_sparsity"] for level in json.loads(result.stdout)["levels"]] == [0.0, 0.3, 0.5]


def test_a_prepared_model_is_shown_as_a_table_on_stdout(store: Path, tiny_model_dir: Path) -> None:
    result = run("frontier", tiny_model_dir, "--store", store)
    header, *lines = result.stdout.splitlines()
    begin = next(index for index, line in enumerate(lines) if line.startswith("cascade"))
    rows, cascades = (
        [line for line in part if line[:30].strip()[:1].isdigit()] for part in (lines[:begin], lines[begin:])
    )
    assert result.exit_code == 0
    assert [row.split()[:2] for row in cascades[:3]] == [["0.3", "98.0%"], ["0.3", "99.0%"], ["0.3", "99.5%"]]
    assert header.split()[:3] == ["sparsity", "achieved", "accuracy"]
    assert sorted(row.split()[0] for row in rows) == ["0", "0.3", "0.5"]  # one line each: nothing is wrapped in a pipe
    assert [line for line in lines if line.strip().startswith("cut by fisher, structured, reconstruct")]


def test_prune_adds_one_variant(store: Path, tiny_model_dir: Path, given: list[object]) -> None:
    options = ["--model", tiny_model_dir, *given, "--store", store]
    result = run("prune", "0.45", *options, "--scorer", "magnitude", "--recover", "none", "--json")
    assert result.exit_code == 0, result.output
    row = json.loads(result.stdout)
    assert (row["requested_sparsity"], row["scorer"], row["recover"]) == (0.45, "magnitude", "none")
    assert row["variant"] in VariantStore(store)
    plain = run("prune", "0.45", *options, "--scorer", "magnitude", "--recover", "none")
    assert row["variant"] in plain.stderr and "magnitude" in plain.stdout


def test_prune_takes_dimensions_inside_heads_where_asked(
    store: Path, tiny_model_dir: Path, given: list[object]
) -> None:
    options = ["--model", tiny_model_dir, *given, "--store", store, "--structures", "heads+units+neurons"]
    row = json.loads(run("prune", "0.6", *options, "--json").stdout)
    assert row["structures"] == "heads+units+neurons"
    assert row["head_dims"] == [list(dims) for dims in VariantStore(store).manifest(row["variant"]).head_dims or []]
    assert "heads+units+neurons" in run("prune", "0.6", *options).stdout


@pytest.mark.parametrize("command", [["prepare", "--levels", "0.3"], ["frontier"]])
def test_a_model_whose_store_is_found_by_itself_is_read_once(
    command: list[str], tiny_model_dir: Path, given: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = given if command[0] == "prepare" else []
    assert run("prepare", tiny_model_dir, *given, "--levels", "0.3").exit_code == 0
    read: list[Path] = []

    def counting(path: Path) -> BaseModel:
        read.append(path)
        return load_base_model(path)

    for module in ("pruning.material", "pruning.encoder", "service.store_commands"):
        monkeypatch.setattr(f"{module}.load_base_model", counting)
    result = run(command[0], tiny_model_dir, *rows, *command[1:], "--json")
    assert result.exit_code == 0, result.output
    assert Path(json.loads(result.stdout)["store"]).name.startswith("tiny-")
    assert read == [tiny_model_dir]


def test_prune_without_calibration_says_to_prepare_first(
    tiny_model_dir: Path, given: list[object], tmp_path: Path
) -> None:
    result = run("prune", "0.5", "--model", tiny_model_dir, *given, "--store", tmp_path / "empty")
    assert refused(result, 2, "run 'sparsedial prepare' first")


@pytest.mark.parametrize("sparsity", ["-1", "-0.5", "1", "1.5", "nan", "inf", "-inf", "text", ""])
@pytest.mark.parametrize("command", ["prune", "dial"])
def test_a_sparsity_that_cannot_be_is_named(command: str, sparsity: str) -> None:
    shown = repr(sparsity) if sparsity in ("text", "") else sparsity
    assert refused(run(command, sparsity, "--json"), 2, "[0, 1)", f"got {shown}")


def test_an_option_s_negative_value_and_a_misspelt_option_are_told_apart(tiny_model_dir: Path) -> None:
    assert refused(run("dial", "0.5", "--wait", "-1"), 2, "--wait")
    assert refused(run("dial", "-1", "--wait", "1"), 2, "got -1")
    assert refused(run("prune", "--scorre", "fisher", "0.5"), 2, "--scorre")


def test_the_help_names_every_scorer() -> None:
    named = SCORER_HELP.removeprefix("Importance scorer: ").removesuffix(".").replace(" or ", ", ").split(", ")
    assert sorted(named) == sorted(CHOICES)


def test_a_scope_is_an_option_of_prune_and_an_unknown_one_is_refused(tiny_model_dir: Path, given: list[object]) -> None:
    options = ("prune", "0.5", "--model", tiny_model_dir, *given, "--pattern", "unstructured", "--scope")
    assert refused(run(*options, "column"), 2, "'column'", "global, layerwise, row")
    assert refused(run("prune", "0.5", "--scope", "row"), 2, "pattern='unstructured'")


@pytest.mark.parametrize("command", ["prune", "dial"])
def test_structures_are_an_option_and_unknown_ones_are_refused(command: str) -> None:
    assert refused(run(command, "0.5", "--structures", "toes"), 2, "'toes'", "heads+units+neurons, sublayers")
    options = ("--structures", "sublayers", "--pattern", "unstructured")
    assert refused(run(command, "0.5", *options), 2, "leave it out, or use pattern='structured'")


@pytest.mark.parametrize(
    ("option", "value", "known"),
    [
        ("--scorer", "psychic", f"known: {', '.join(sorted(SCORERS))}"),
        ("--pattern", "plaid", "structured, unstructured, 2:4"),
        ("--recover", "magic", "none, reconstruct"),
    ],
)
@pytest.mark.parametrize("command", ["prepare", "prune"])
def test_an_unknown_name_is_refused_with_the_known_ones_before_any_work(
    command: str, option: str, value: str, known: str, tiny_model_dir: Path, given: list[object], tmp_path: Path
) -> None:
    model = [tiny_model_dir] if command == "prepare" else ["0.5", "--model", tiny_model_dir]
    result = run(command, *model, *given, "--store", tmp_path / "store", option, value)
    assert refused(result, 2, repr(value), known)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("levels", ["0,1", "-0.1", "nan", "0,half"])
def test_levels_that_cannot_be_are_refused(levels: str, tiny_model_dir: Path, given: list[object]) -> None:
    assert refused(run("prepare", tiny_model_dir, *given, f"--levels={levels}"), 2, "levels", "[0, 1)", levels)


def test_a_foreign_model_needs_rows_of_its_own(tiny_model_dir: Path, tiny_rows: tuple[Path, Path]) -> None:
    assert refused(run("prepare", tiny_model_dir), 2, "--train", "--eval", "tiny")
    assert refused(run("prepare", tiny_model_dir, "--train", tiny_rows[0]), 2, "--train", "--eval")


def test_rows_that_score_a_model_may_not_judge_it(tiny_model_dir: Path, tiny_rows: tuple[Path, Path]) -> None:
    around = tiny_rows[0].parent / ".." / tiny_rows[0].parent.name / tiny_rows[0].name
    assert refused(run("prepare", tiny_model_dir, "--train", tiny_rows[0], "--eval", around), 2, "same file")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ('{"text": "good", "label": "splendid"}', ["line 42", "'splendid'", "'negative', 'positive'"]),
        ('{"text": "good"}', ["line 42", "no label"]),
        ('{"label": "positive"}', ["line 42", "no text"]),
        ("{", ["line 42", "JSON"]),
    ],
)
def test_a_row_that_cannot_be_used_is_named_by_its_line(
    row: str, words: list[str], tiny_model_dir: Path, tiny_rows: tuple[Path, Path], tmp_path: Path
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 41, seed=9)
    rows.write_text(rows.read_text() + row + "\n")
    assert refused(run("prepare", tiny_model_dir, "--train", rows, "--eval", tiny_rows[1]), 2, str(rows), *words)


def test_rows_that_are_not_there_or_empty_are_named(
    tiny_model_dir: Path, tiny_rows: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "empty.jsonl").touch()
    for name, words in (("empty.jsonl", "no rows"), ("nowhere.jsonl", "no file")):
        result = run("prepare", tiny_model_dir, "--train", tiny_rows[0], "--eval", tmp_path / name)
        assert refused(result, 2, name, words)


def test_a_model_that_is_none_is_named(tmp_path: Path) -> None:
    assert refused(run("frontier", tmp_path), 2, str(tmp_path), "config.json")
    assert refused(run("frontier", tmp_path / "nowhere"), 2, str(tmp_path / "nowhere"))


def test_the_frontier_of_an_empty_store_says_to_prepare_first(tiny_model_dir: Path, tmp_path: Path) -> None:
    assert refused(run("frontier", tiny_model_dir, "--store", tmp_path), 2, str(tmp_path), "run 'sparsedial prepare'")


def test_the_frontier_as_json_and_as_a_picture(store: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    picture = tmp_path / "frontier.png"
    result = run("frontier", tiny_model_dir, "--store", store, "--json", "--plot", picture)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert (document["store"], len(document["levels"])) == (str(store), 3)
    assert picture.read_bytes().startswith(b"\x89PNG\r\n")


@pytest.mark.parametrize("name", ["frontier.xyz", "frontier", "nowhere/frontier.png"])
def test_a_picture_that_cannot_be_written_is_named(
    name: str, store: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    picture = tmp_path / name
    assert refused(run("frontier", tiny_model_dir, "--store", store, "--plot", picture), 2, "--plot", str(picture))


def test_a_full_disk_is_no_traceback(
    store: Path, tiny_model_dir: Path, given: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", str(store / "speeds.json"))

    monkeypatch.setattr("pruning.frontier.write_json", no_space)
    (store / "speeds.json").unlink()
    result = run("prepare", tiny_model_dir, *given, "--store", store, "--levels", "0.3,0.5", "--json")
    assert refused(result, 2, "No space left on device", "speeds.json")


# --- settings -----------------------------------------------------------------------------------------------------


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


# --- help ---------------------------------------------------------------------------------------------------------


def test_a_ladder_in_two_precisions_is_timed_in_one_run_and_judged_together(
    store: Path, tiny_model_dir: Path, given: list[object]
) -> None:
    options = (*given, "--store", store, "--levels", "0,0.5", "--precision", "float32,bfloat16", "--json")
    result = run("prepare", tiny_model_dir, *options)
    assert result.exit_code == 0, result.output
    levels = json.loads(result.stdout)["levels"]
    assert sorted((level["precision"], level["requested_sparsity"]) for level in levels) == [
        ("bfloat16", 0.0),
        ("bfloat16", 0.5),
        ("float32", 0.0),
        ("float32", 0.5),
    ]
    assert len({level["speeds_run"] for level in levels}) == 1
    dense = next(level for level in levels if (level["precision"], level["requested_sparsity"]) == ("float32", 0.0))
    for level in levels:
        assert level["speedup_over_float32"] == pytest.approx(level["items_per_s"] / dense["items_per_s"])
    worthy = [level["variant"] for level in levels if level["dominated_by"] is None]
    assert worthy and all(level["dominated_by"] in (None, *worthy) for level in levels)


def test_a_precision_that_is_chosen_by_measurement_is_shown_with_what_was_read(
    store: Path, tiny_model_dir: Path, given: list[object]
) -> None:
    options = (*given, "--store", store, "--levels", "0,0.5", "--precision", "auto", "--json")
    result = run("prepare", tiny_model_dir, *options)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    choice = document["precision"]
    assert {level["precision"] for level in document["levels"]} == {choice["chosen"]}
    assert choice["readings"][0]["precision"] == "float32"
    assert choice["chosen"] in {reading["precision"] for reading in choice["readings"]}
    assert f"precision {choice['chosen']}, the fastest within 0.5 points of float32" in result.stderr


# --- bench --------------------------------------------------------------------------------------------------------


def test_bench_reads_the_engine_alone_without_a_service(tiny_model_dir: Path, tmp_path: Path) -> None:
    train, evaluation = (write_rows(tmp_path / f"{name}.jsonl", 40, seed=seed) for name, seed in (("t", 5), ("e", 6)))
    rows = ("--train", train, "--eval", evaluation, "--store", tmp_path / "bench")
    result = run("bench", tiny_model_dir, *rows, "--levels", "0.5", "--seconds", "0.1", "--no-http", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert [level["requested_sparsity"] for level in document["levels"]] == [0.0, 0.5]
    assert all(level["http"] == {} and level["engine"]["texts_per_s"] > 0 for level in document["levels"])
    assert document["levels"][0]["engine"]["shares"]["tokenization"] > 0


def test_bench_reads_a_shape_with_random_weights_and_tells_it_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHAPES, "tiny", (32, 2, 4, 64))
    given = ("--levels", "0.5", "--precision", "float32,bfloat16", "--lengths", "4,7", "--seconds", "0.1")
    result = run("bench", "--shape", "tiny", *given)
    assert result.exit_code == 0, result.output
    assert "tiny (random weights)" in result.stdout
    assert "0.5 bfloat16, engine alone: " in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--shape", "bert-huge"), ("unknown shape 'bert-huge'", "bert-base")),
        (("--shape", "bert-base", "--lengths", "513"), ("from 1 to 512", "513")),
        (("--shape", "bert-base", "--lengths", "long"), ("--lengths must be whole numbers", "'long'")),
        (("--precision", "float32,float8"), ("unknown precision 'float8'", "bfloat16")),
        (("--precision", ","), ("no precision is named", "bfloat16")),
        (("--plot", "bench.jpg"), ("bench.png, not bench.jpg",)),
    ],
)
def test_what_bench_cannot_measure_is_refused_with_a_remedy(arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    assert refused(run("bench", *arguments), 2, *words)


def test_bench_wants_texts_for_one_batch(store: Path, tiny_model_dir: Path, given: list[object]) -> None:
    result = run("bench", tiny_model_dir, *given, "--store", store, "--no-http")
    assert refused(result, 2, "has 30 texts; one batch takes 32")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_with_an_example_that_is_kept_on_its_line(command: str) -> None:
    help_text = run(command, "--help").stdout
    assert "Example:" in help_text
    examples = [line.strip() for line in help_text.splitlines() if line.startswith("    ")]
    assert any(f"sparsedial {command}" in line for line in examples)
    assert "--json" in help_text


def test_the_overview_names_every_command_in_one_line_each() -> None:
    lines = run("--help").stdout.splitlines()
    for command in COMMANDS:
        (line,) = [line for line in lines if line.startswith(f"  {command} ")]
        assert line.endswith("."), line
        assert not line.endswith("..."), line
    assert "serves the embedded model" in " ".join(lines)


def test_the_version_is_told() -> None:
    assert run("--version").stdout == f"{VERSION}\n"


def test_commands_that_only_speak_http_load_no_torch() -> None:
    code = "import sys, service.cli; sys.exit(bool({'torch', 'ray', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- dial, rollback, status ---------------------------------------------------------------------------------------


@pytest.fixture
def admin() -> Iterator[FakeAdmin]:
    with serving() as admin:
        yield admin


def test_dial_sends_the_wish_and_the_token_and_shows_the_commit(admin: FakeAdmin) -> None:
    admin.answers(200, COMMITTED)
    result = run("dial", "0.5", "--url", admin.url, "--token", "s3cret-tökèn", "--scorer", "taylor", "--wait", "7")
    assert result.exit_code == 0, result.output
    assert result.stdout == "committed: generation 2, variant 0000000000001388, accuracy 88.0%\n"
    (asked,) = admin.asked
    assert (asked.method, asked.path) == ("PUT", "/admin/sparsity?wait=7.0")
    assert asked.body == {"sparsity": 0.5, "scorer": "taylor"}
    assert (asked.authorization or "").encode("latin-1") == "Bearer s3cret-tökèn".encode()


def test_dial_and_status_as_json_print_the_service_s_document(admin: FakeAdmin) -> None:
    admin.answers(200, COMMITTED)
    assert json.loads(run("dial", "0.5", "--url", admin.url, "--token", "t", "--json").stdout) == COMMITTED
    admin.answers(200, status_of(first_state()))
    assert json.loads(run("status", "--url", admin.url, "--token", "t", "--json").stdout) == status_of(first_state())


def test_status_says_what_is_served_and_what_is_changing(admin: FakeAdmin) -> None:
    admin.answers(200, status_of(BUILDING_STATE))
    result = run("status", SPARSEDIAL_URL=admin.url, SPARSEDIAL_ADMIN_TOKEN="t")
    assert result.exit_code == 0
    for words in ("sparsity 0 ", "generation 1", "accuracy 90.0%", "floor 85.0%", "1 replica\n", "op1 is building"):
        assert words in result.stdout
    assert admin.asked[0].authorization == "Bearer t"


PLAN = plan_level(PruneSpec(sparsity=0.6), ROWS, FACTS)


def test_plan_asks_for_a_sparsity_or_for_bounds_and_says_what_it_rests_on(admin: FakeAdmin) -> None:
    admin.answers(200, PLAN)
    result = run("plan", "0.6", "--scorer", "taylor", "--url", admin.url, "--token", "t")
    for words in (
        "sparsity 0.6: predicted between 0.5 and 0.7\n",
        "passes the floor 85.0%",
        "built in 1.1 s",
        "3 times",
    ):
        assert words in result.stdout
    bounded = run("plan", "--p99-ms", "20", "--accuracy", "0.88", "--url", admin.url, "--token", "t", "--json")
    assert json.loads(bounded.stdout) == PLAN
    assert [(asked.method, asked.path, asked.body) for asked in admin.asked] == [
        ("POST", "/admin/plan", {"sparsity": 0.6, "scorer": "taylor"}),
        ("POST", "/admin/plan", {"p99_ms": 20.0, "accuracy": 0.88}),
    ]


@pytest.mark.parametrize("arguments", [(), ("0.5", "--p99-ms", "20"), ("--scorer", "taylor", "--accuracy", "0.9")])
def test_plan_wants_a_sparsity_or_bounds(arguments: tuple[str, ...]) -> None:
    assert refused(run("plan", *arguments), 2, "plan wants a SPARSITY")


@pytest.mark.parametrize(
    ("off", "words"),
    [
        (None, "the cascade from 0.6 (agreement 0.99) answers requests that name no level"),
        ("it agrees in 0.5 of 40 texts", "(agreement 0.99) is switched off: it agrees in 0.5 of 40 texts"),
    ],
)
def test_status_says_how_the_policy_s_cascade_fares(admin: FakeAdmin, off: str | None, words: str) -> None:
    cascade = {"sparsity": 0.6, "agreement_target": 0.99, "active": off is None, "off": off, "of": []}
    admin.answers(200, status_of(first_state()) | {"cascade": cascade})
    assert words in run("status", "--url", admin.url, "--token", "t").stdout


def test_status_says_what_the_governor_is_about(admin: FakeAdmin) -> None:
    governor = {"why": "queue", "reason": "what waits takes 300 ms to answer"}
    admin.answers(200, status_of(first_state()) | {"governor": governor})
    result = run("status", "--url", admin.url, "--token", "t")
    assert "the governor turns the dial (queue): what waits takes 300 ms to answer" in result.stdout


def test_policy_shows_what_holds(admin: FakeAdmin) -> None:
    held = Policy(accuracy_floor=0.8).as_dict()
    admin.answers(200, held)
    result = run("policy", "--url", admin.url, "--token", "t")
    assert (admin.asked[0].method, admin.asked[0].path, admin.asked[0].body) == ("GET", "/admin/policy", None)
    for words in ("mode=manual", "accuracy_floor=0.8", "slo_p99_ms=null"):
        assert f"{words}\n" in result.stdout
    assert json.loads(run("policy", "--url", admin.url, "--token", "t", "--json").stdout) == held


def test_policy_sets_members_as_they_are_written(admin: FakeAdmin) -> None:
    admin.answers(200, Policy(accuracy_floor=0.8).as_dict())
    words = ("mode=auto", "slo_p99_ms=50", "max_sparsity=0.7", "agreement_floor=null")
    assert run("policy", *words, "--url", admin.url, "--token", "t").exit_code == 0
    assert admin.asked[0].method == "PUT"
    assert admin.asked[0].body == {"mode": "auto", "slo_p99_ms": 50, "max_sparsity": 0.7, "agreement_floor": None}


@pytest.mark.parametrize("words", ["auto", "=auto", "mode"])
def test_policy_words_that_set_nothing_are_2_and_say_how(admin: FakeAdmin, words: str) -> None:
    assert refused(run("policy", words, "--url", admin.url, "--token", "t"), 2, words, "MEMBER=VALUE")
    assert not admin.asked


def test_rollback_asks_for_the_previous_variant(admin: FakeAdmin) -> None:
    admin.answers(200, COMMITTED)
    assert run("rollback", "--url", admin.url, "--token", "t").exit_code == 0
    assert (admin.asked[0].method, admin.asked[0].path) == ("POST", "/admin/rollback?wait=60.0")


def test_rollback_says_that_a_running_change_was_taken_back(admin: FakeAdmin) -> None:
    admin.answers(200, TAKEN_BACK)
    result = run("rollback", "--url", admin.url, "--token", "t")
    assert (result.exit_code, result.stdout) == (
        0,
        "taken back: operation op1 (sparsity 0.5); what was served goes on\n",
    )


def test_a_change_that_failed_is_1_and_its_operation_is_on_stdout_as_json(admin: FakeAdmin) -> None:
    failed = problem(422, "no rows", **FAILED)
    admin.answers(422, failed)
    assert refused(run("dial", "0.5", "--url", admin.url, "--token", "t"), 1, "no rows")
    result = run("dial", "0.5", "--url", admin.url, "--token", "t", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["phase"] == "failed"


def test_a_change_that_is_not_over_in_time_is_1_and_0_if_nobody_waits(admin: FakeAdmin) -> None:
    admin.answers(202, building())
    assert refused(
        run("dial", "0.5", "--url", admin.url, "--token", "t", "--wait", "0.5"), 1, "op1", "building", "0.5 s"
    )
    result = run("dial", "0.5", "--url", admin.url, "--token", "t", "--wait", "0")
    assert (result.exit_code, "building: operation op1" in result.stdout) == (0, True)


@pytest.mark.parametrize(("status", "exit_code"), [(409, 1), (503, 1), (422, 2)])
def test_a_refusal_is_told_in_the_service_s_words(admin: FakeAdmin, status: int, exit_code: int) -> None:
    admin.answers(status, problem(status, "Another change runs."))
    assert refused(run("rollback", "--url", admin.url, "--token", "t"), exit_code, "Another change runs.")


def test_a_wrong_token_is_2_and_says_where_the_right_one_is(admin: FakeAdmin) -> None:
    admin.answers(401, problem(401, "Send the admin token."))
    result = run("status", "--url", admin.url, "--token", "wr0ng")
    assert refused(result, 2, "--token", "SPARSEDIAL_ADMIN_TOKEN", "admin.token")
    assert "wr0ng" not in result.output


def test_no_service_is_3_and_says_how_to_start_one() -> None:
    for command in (["status"], ["dial", "0.5"], ["rollback"], ["policy"]):
        assert refused(run(*command, "--url", "http://127.0.0.1:1"), 3, "http://127.0.0.1:1", "sparsedial serve")


def test_the_token_of_a_service_on_this_machine_is_found(admin: FakeAdmin, tmp_path: Path) -> None:
    admin.answers(200, status_of(first_state()))
    token_file = tmp_path / "admin.token"
    token_file.write_text("found\n")
    leave_note(1234, admin.url, token_file)
    assert run("status", "--url", admin.url.replace("127.0.0.1", "localhost") + "/").exit_code == 0
    assert admin.asked[0].authorization == "Bearer found"


def test_a_token_that_was_found_goes_to_the_address_that_the_service_noted(admin: FakeAdmin, tmp_path: Path) -> None:
    """Whoever listens on the same port of another loopback address gets nothing; here nobody does."""
    admin.answers(200, status_of(first_state()))
    (tmp_path / "admin.token").write_text("found\n")
    leave_note(1234, admin.url, tmp_path / "admin.token")
    assert run("status", "--url", admin.url.replace("127.0.0.1", "[::1]")).exit_code == 0
    assert admin.asked[0].authorization == "Bearer found"
