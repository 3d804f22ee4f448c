import json
from pathlib import Path

import pytest

from loadtests.peers import cli
from loadtests.peers.catalog import CONTESTANTS, Place
from loadtests.peers.cli import main
from tests.loadtests.peers.contestants import contestant

SHORT = ["--seconds", "0.1", "--warm-up", "0.05", "--rounds", "1", "--loads", "c1,b1x2"]


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    """A good contestant and one that does not start, in place of the real ones."""
    monkeypatch.setattr(cli, "CONTESTANTS", (contestant("works"), contestant("broken", "break")))


@pytest.mark.usefixtures("two")
def test_a_whole_run_exits_with_0_and_writes_its_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = tmp_path / "rows.jsonl"
    texts.write_text('{"text": "Fine.", "label": "good"}\n{"text": "Sad.", "label": "bad"}\n', encoding="utf-8")
    where = ["--envs", str(tmp_path / "envs"), "--out", str(tmp_path / "out"), "--texts", str(texts)]
    assert main([*SHORT, "--peers", "works", "--json", *where]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["rows"][0]["accuracy"] == 0.5
    assert "round 1/1: works" in printed.err
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".md", ".json"}


@pytest.mark.usefixtures("two")
def test_a_contestant_that_is_not_measured_makes_it_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SHORT, "--peers", "broken,works", "--envs", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert "| broken | broken, for tests | - | - | - | - | - | does not start: ImportError" in printed.out
    assert "BROKEN every contestant is measured" in printed.err


def test_texts_that_cannot_be_read_make_it_2(tmp_path: Path) -> None:
    assert main(["--texts", str(tmp_path / "absent.jsonl")]) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        ["--peers", "nobody"],
        ["--loads", "c0"],
        ["--levels", "1"],
        ["--levels", "nan"],
        ["--seconds", "0"],
        ["--seconds", "inf"],
        ["--rounds", "0"],
    ],
)
def test_an_option_that_cannot_be_is_refused(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(wrong)
    assert exit_.value.code == 2


def test_the_list_names_everyone_with_its_pins(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    printed = capsys.readouterr().out
    for each in CONTESTANTS:
        assert each.name in printed
    assert "litserve==" in printed and "typing_extensions" not in printed


def test_the_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    printed = capsys.readouterr().out
    for word in ("examples", "exit codes", "--peers", "--levels", "--envs"):
        assert word in printed


@pytest.mark.parametrize("each", CONTESTANTS, ids=lambda each: each.name)
def test_every_contestant_has_pins_and_files_that_exist(each: object, tmp_path: Path) -> None:
    entry = next(contestant for contestant in CONTESTANTS if contestant is each)
    if entry.requirements is None or entry.folder is None:
        return
    lines = [line for line in entry.requirements.read_text(encoding="utf-8").splitlines() if line[:1] not in ("", "#")]
    assert all("==" in line and "+" not in line for line in lines)
    place = Place(bin=tmp_path, prepared=tmp_path, port=1)
    commands = [entry.start(place), entry.prepare(place) if entry.prepare else ()]
    scripts = [word for command in commands for word in command if word.endswith(".py")]
    assert all((entry.folder / script).is_file() for script in scripts)
