import subprocess
import sys
from pathlib import Path

import pytest

from pruning.scores import CHOICES, SCORERS
from service.options import SCORER_HELP
from service.version import VERSION
from tests.service.cli_parts import refused, run

pytestmark = pytest.mark.usefixtures("own_environment")

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
    named = SCORER_HELP.partition(".")[0].removeprefix("Importance scorer: ").replace(" or ", ", ").split(", ")
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
