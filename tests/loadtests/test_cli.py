import json
from pathlib import Path

import pytest

from loadtests.cli import main
from tests.loadtests.fake_service import TOKEN, FakeService

SWAP = ["swap_under_load", "--swaps", "4", "--steady", "0.2", "--pause", "0.02", "--rate", "150"]


def test_a_run_that_holds_exits_with_0_and_writes_its_files(
    service: FakeService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n", encoding="utf-8")
    arguments = ["--url", service.url, "--admin-token-file", str(tmp_path / "token"), "--out", str(tmp_path / "out")]
    assert main([*SWAP, *arguments, "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["held"] is True
    assert "swap 4/4" in printed.err
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".md", ".json", ".jsonl"}


def test_a_broken_law_exits_with_1_and_is_told(service: FakeService, capsys: pytest.CaptureFixture[str]) -> None:
    service.status_of = lambda number: 500 if number % 10 == 9 else 200
    assert main([*SWAP, "--url", service.url, "--admin-token", TOKEN]) == 1
    printed = capsys.readouterr()
    assert "BROKEN no failed request" in printed.err
    assert "# swap_under_load" in printed.out


def test_a_test_that_cannot_run_exits_with_2(service: FakeService, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SWAP, "--url", service.url, "--admin-token", "wrong"]) == 2
    assert "answered 401" in capsys.readouterr().err
    assert main(["steady", "--url", "http://192.0.2.7", "--rate", "1"]) == 2
    assert "--allow-remote" in capsys.readouterr().err


def test_the_token_may_come_from_the_environment(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSEDIAL_ADMIN_TOKEN", TOKEN)
    assert main([*SWAP, "--url", service.url]) == 0


def test_an_overload_has_connections_for_all_that_may_wait(
    service: FakeService, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ["--rate", "50", "--seconds", "0.3", "--calm", "0.2", "--recovery", "0.2"]
    assert main(["overload", "--url", service.url, *short]) == 0
    assert "at most 4096 connections" in capsys.readouterr().out


@pytest.mark.parametrize("rate", ["0", "-3", "nan", "fast"])
def test_a_rate_that_is_none_is_refused(rate: str) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["steady", "--rate", rate])
    assert exit_.value.code == 2


def test_the_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    printed = capsys.readouterr().out
    for word in ("swap_under_load", "steady", "overload", "spike", "compare", "examples", "exit codes"):
        assert word in printed
