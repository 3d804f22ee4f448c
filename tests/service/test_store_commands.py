import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

import pruning.latencies
from pruning.cache import CalibrationCache
from pruning.encoder import BaseModel, load_base_model
from pruning.processor import processor
from pruning.variants import VariantStore
from tests.service.cli_parts import refused, run

pytestmark = pytest.mark.usefixtures("own_environment")


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


def test_prune_finds_the_sparsity_of_a_speed_up_by_what_this_machine_takes(
    store: Path, tiny_model_dir: Path, given: list[object]
) -> None:
    options = ["--model", tiny_model_dir, *given, "--store", store, "--json"]
    found = run("prune", "--speedup", 1.01, *options)
    assert found.exit_code == 0, found.output
    row = json.loads(found.stdout)
    assert row["scope"] == "latency" and row["requested_sparsity"] > 0.0
    assert "measuring what sublayers" in found.stderr
    again = run("prune", row["requested_sparsity"], "--scope", "latency", *options)
    assert json.loads(again.stdout)["variant"] == row["variant"]
    assert "were measured on" not in found.stderr + again.stderr


def test_prune_says_that_its_latencies_are_another_processor_s(
    store: Path, tiny_model_dir: Path, given: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--model", tiny_model_dir, *given, "--store", store, "--scope", "latency", "--json"]
    here = json.loads(run("prune", "0.5", *options).stdout)
    (table,) = (store / "latencies").iterdir()
    monkeypatch.setattr(pruning.latencies, "processor", lambda: "another one")
    elsewhere = run("prune", "0.5", *options)
    assert json.loads(elsewhere.stdout)["variant"] == here["variant"]
    assert f"were measured on {processor()}, this is another one: to measure here, delete {table}" in elsewhere.stderr
    table.unlink()
    assert "were measured on" not in run("prune", "0.5", *options).stderr


@pytest.mark.parametrize("words", [[], ["0.5", "--speedup", "2"]])
def test_prune_wants_a_sparsity_or_a_speed_up(words: list[str]) -> None:
    assert refused(run("prune", *words), 2, "a SPARSITY or --speedup, one of the two")


def test_a_speed_up_is_asked_of_cuts_by_latency(store: Path, tiny_model_dir: Path, given: list[object]) -> None:
    options = ["--model", tiny_model_dir, *given, "--store", store, "--speedup", "2"]
    assert refused(run("prune", *options, "--scope", "layerwise"), 2, "got scope=layerwise")
    assert refused(run("prune", *options, "--pattern", "unstructured"), 2, "scope='latency' does not go with")


@pytest.mark.parametrize(
    ("words", "said"), [(["0.5"], "speedup must be above 1"), (["2", "--rounds", "2"], "leave the rounds out")]
)
def test_a_speed_up_that_cannot_be_asked_for_is_refused_before_the_model_is_read(words: list[str], said: str) -> None:
    assert refused(run("prune", "--speedup", *words, "--model", "/no/such/model"), 2, said)


def test_a_model_that_was_not_prepared_is_refused_before_anything_is_measured(
    tmp_path: Path, tiny_model_dir: Path, given: list[object]
) -> None:
    place = ["--model", tiny_model_dir, *given, "--store", tmp_path / "store"]
    result = run("prune", "--speedup", "2", *place)
    assert "run 'sparsedial prepare' first" in result.stderr and "measuring" not in result.stderr


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
