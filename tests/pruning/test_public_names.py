"""The list of names in the package's docstring is true, and reading it costs nothing."""

import importlib
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import pruning

LINE = re.compile(r"^ {4}(pruning\.[\w.]+)? +([A-Z]\w+(?:, [A-Z]\w+)*|[a-z_]+|[A-Z]+) {2,}\S", re.MULTILINE)


def listed() -> list[tuple[str, str]]:
    """(module, name) of every line of the list; a line without a module goes on with the one above."""
    found: list[tuple[str, str]] = []
    module = ""
    for given, names in LINE.findall(pruning.__doc__ or ""):
        module = given or module
        found += [(module, name) for name in names.split(", ")]
    return found


def test_the_list_is_found() -> None:
    assert len(listed()) >= 20
    assert ("pruning.workbench", "Workbench") in listed()
    assert ("pruning.spec", "Recover") in listed()


@pytest.mark.parametrize(("module", "name"), listed())
def test_every_name_is_where_the_list_says_and_says_what_it_is(module: str, name: str) -> None:
    public = getattr(importlib.import_module(module), name)
    assert not callable(public) or public.__doc__


def test_the_example_runs_as_it_stands(
    tiny_model_dir: Path,
    tiny_rows: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(tiny_model_dir, tmp_path / "my-bert")
    for rows, name in zip(tiny_rows, ("train.jsonl", "held-out.jsonl"), strict=True):
        shutil.copy(rows, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    example = (pruning.__doc__ or "").partition("    from pathlib")[2].rpartition("\n\n")[0]
    exec(textwrap.dedent("    from pathlib" + example), {})
    assert capsys.readouterr().out.startswith("Evaluation(metric=Metric(name='accuracy', value=")


def test_the_package_alone_imports_nothing_slow() -> None:
    script = "import sys, pruning; print(sorted({'torch', 'transformers', 'matplotlib', 'pyarrow'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
