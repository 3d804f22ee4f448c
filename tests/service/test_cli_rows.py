from pathlib import Path

import pytest

from tests.conftest import write_rows
from tests.service.cli_parts import refused, run

pytestmark = pytest.mark.usefixtures("own_environment")


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
