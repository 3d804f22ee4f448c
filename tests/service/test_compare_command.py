import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from pruning.scores import SCORERS
from tests.service.cli_parts import refused, run

pytestmark = pytest.mark.usefixtures("own_environment")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compared")


@pytest.fixture
def compared(tiny_model_dir: Path, given: list[object], store: Path) -> Any:
    """Run the command on the tiny model."""

    def compare(*options: object) -> Result:
        return run("compare", tiny_model_dir, *given, "--store", store, *options)

    return compare


def test_json_is_one_document_of_what_was_asked_for(compared: Any, store: Path) -> None:
    result = compared("--scorers", "wanda, fisher", "--levels", "0,0.6,0.3", "--seeds", 2, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["store"] == str(store)
    assert (document["scorers"], document["levels"], document["seeds"]) == (["wanda", "fisher"], [0.3, 0.6], 2)
    assert len(document["rows"]) == 4 and len(document["overlap"]) == 2
    assert document["cells_computed"] + document["cells_stored"] == 8
    assert "comparing scorers: 100 %" in result.stderr


def test_a_second_run_says_that_scores_are_cached_and_cuts_were_stored(compared: Any) -> None:
    options = ("--scorers", "magnitude,random", "--levels", "0.5", "--seeds", 1)
    assert "MiB" in compared(*options).stdout
    again = compared(*options)
    assert again.exit_code == 0, again.output
    assert again.stdout.count("cached") == 2
    assert "0 cuts judged now, 2 stored before" in again.stderr


def test_tables_name_every_scorer_and_both_recoveries(compared: Any, tmp_path: Path) -> None:
    picture = tmp_path / "compared.png"
    result = compared(
        "--scorers", "all", "--levels", "0.5", "--seeds", 1, "--recover", "none,reconstruct", "--plot", picture
    )
    assert result.exit_code == 0, result.output
    words = result.stdout.split()
    for scorer in SCORERS:
        assert words.count(scorer) == 3  # a row for each recovery, and one of overlaps
    assert words.count("none") == words.count("reconstruct") == len(SCORERS)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert f"picture in {picture}" in result.stderr


def test_markdown_has_a_row_a_scorer_and_a_column_a_cut(compared: Any) -> None:
    options = ("--scorers", "magnitude,random", "--levels", "0.3,0.6", "--seeds", 2, "--recover", "reconstruct,none")
    lines = compared(*options, "--markdown").stdout.splitlines()
    tables = [line for line in lines if line.startswith("|")]
    assert tables[0] == "| scorer | 30% none | 30% reconstruct | 60% none | 60% reconstruct |"
    rows = {row["scorer"]: row for row in json.loads(compared(*options, "--json").stdout)["rows"][-2:]}
    for line in tables[2:4]:
        assert line.count(" ± ") == 4
    assert {line.split()[1] for line in tables[2:4]} == {"magnitude", "random"} >= rows.keys()
    assert tables[4] == "|  | magnitude | random | own seeds |"
    assert lines[0].startswith("structured; dense accuracy ")


def test_cuts_are_distilled_for_as_many_steps_as_asked(compared: Any) -> None:
    options = ("--scorers", "random", "--levels", "0.6", "--seeds", 1, "--recover", "none,distill", "--steps", 2)
    result = compared(*options)
    assert result.exit_code == 0, result.output
    assert "distill: 2 steps of 32 rows" in result.stdout
    document = json.loads(compared(*options, "--json").stdout)
    assert {row["recover"] for row in document["rows"]} == {"none", "distill"}
    assert document["training"]["steps"] == 2 and document["cells_computed"] == 0


def test_layers_may_be_equally_wide(compared: Any) -> None:
    options = ("--scorers", "random", "--levels", "0.6", "--seeds", 1, "--scope", "layerwise")
    document = json.loads(compared(*options, "--json").stdout)
    assert document["scope"] == "layerwise"
    assert len(set(document["rows"][0]["neurons"])) == 1
    assert compared(*options).stdout.startswith("structured, layerwise; ")


def test_2_4_is_compared_at_its_own_level(compared: Any) -> None:
    document = json.loads(compared("--pattern", "2:4", "--seeds", 1, "--json").stdout)
    assert document["levels"] == [0.5]
    assert {row["recover"] for row in document["rows"]} == {"none"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--scorers", "fisher,fishy"], ["unknown scorer 'fishy'", "wanda"]),
        (["--scorers", ","], ["no scorer to compare"]),
        (["--levels", ""], ["no level to compare at", "0.3,0.5,0.7"]),
        (["--levels", "0"], ["no level to compare at"]),
        (["--levels", "half"], ["--levels must be numbers", "'half'"]),
        (["--pattern", "2:4", "--levels", "0.5,0.7"], ["sparsity=0.7", "use 0.5"]),
        (["--pattern", "unstructured", "--scorers", "obs"], ["ranks whole heads", "leave it out"]),
        (["--structures", "toes"], ["unknown structures 'toes'", "sublayers"]),
        (["--structures", "sublayers", "--pattern", "unstructured"], ["leave it out"]),
        (["--seeds", "0"], ["seeds must be a whole number of at least 1; got 0"]),
        (["--rows", "0"], ["rows must be a whole number of at least 1; got 0"]),
        (["--recover", "distill"], ["needs a recipe", "--steps"]),
        (["--steps", "300"], ["needs a recipe", "only with it"]),
        (["--scope", "row"], ["scope='row' does not go with pattern='structured'"]),
        (["--json", "--markdown"], ["--json and --markdown are two outputs"]),
        (["--plot", "compared.pdf"], ["--plot writes a PNG", "compared.png"]),
    ],
    ids=str,
)
def test_bad_input_is_refused_before_the_model_is_read(
    compared: Any, monkeypatch: pytest.MonkeyPatch, options: list[str], words: list[str]
) -> None:
    monkeypatch.setattr("service.store_commands.Material.load", lambda *_: pytest.fail("read first"))
    assert refused(compared(*options), 2, *words)


def test_a_picture_that_cannot_be_written_is_told(compared: Any, tmp_path: Path) -> None:
    options = ("--scorers", "random", "--levels", "0.5", "--seeds", 1, "--plot", tmp_path / "none" / "compared.png")
    assert refused(compared(*options), 2, "cannot be written", "No such file")
