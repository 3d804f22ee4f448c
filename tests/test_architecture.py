"""What ``lint-imports`` cannot see of the house rules."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("pruning", "service", "loadtests", "deploy", "scripts")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
MAX_LINES = 300
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
"""Modules that run what they read."""


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module or member that is imported, by its full name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def called(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Every call, by the words of what is called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.fixture(params=SOURCES, ids=name_of)
def path(request: pytest.FixtureRequest) -> Path:
    assert isinstance(request.param, Path)
    return request.param


@pytest.fixture
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_no_file_is_longer_than_a_reader_can_hold(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES, f"{name_of(path)} has {lines} lines; split it by purpose"


def test_nothing_is_read_that_could_run_code(tree: ast.Module) -> None:
    names = set(imported(tree))
    assert not {name for name in names if name.partition(".")[0] in PICKLES}
    assert not names & {"torch.load", "torch.save"}
    assert not [call for call, _ in called(tree) if call in ("torch.load", "torch.save", "eval", "exec")]
    numpy = [node for call, node in called(tree) if call in ("np.load", "numpy.load")]
    assert not [node for node in numpy if any(keyword.arg == "allow_pickle" for keyword in node.keywords)]


def test_no_command_goes_through_a_shell(tree: ast.Module) -> None:
    for call, node in called(tree):
        assert call not in ("os.system", "os.popen")
        assert not [keyword for keyword in node.keywords if keyword.arg == "shell"]


def test_every_file_says_first_what_it_is(path: Path, tree: ast.Module) -> None:
    if path.name == "__init__.py" and not tree.body:
        return
    words = ast.get_docstring(tree)
    assert words and words.splitlines()[0].endswith((".", ":")), name_of(path)


def test_metrics_are_never_made_at_module_level(tree: ast.Module) -> None:
    """A class that uses such a metric could not be pickled by Ray, nor stand twice in one process."""
    for statement in tree.body:
        if isinstance(statement, (ast.Assign, ast.AnnAssign)):
            made = {call.rpartition(".")[2] for call, _ in called(statement)}
            assert not made & {"Counter", "Gauge", "Histogram", "Summary", "CollectorRegistry"}
