import subprocess
from pathlib import Path

import pytest

from loadtests.peers.environments import BRINGS, clean_environment, environment_python, pins
from loadtests.peers.process import PeerError


def test_pins_are_those_that_were_chosen(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text(f"# About.\na==1\nb[c]==2\n\n{BRINGS}\nd==3\n", encoding="utf-8")
    assert pins(tmp_path / "r.txt") == ["a==1", "b[c]==2"]


def test_what_the_callers_shell_says_of_threads_and_services_is_not_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "SPARSEDIAL_PRECISION", "RAY_ADDRESS", "PYTHONPATH"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("KEPT", "x")
    environment = clean_environment()
    assert environment["KEPT"] == "x" and environment["HF_HUB_OFFLINE"] == "1"
    assert not {"OMP_NUM_THREADS", "SPARSEDIAL_PRECISION", "RAY_ADDRESS", "PYTHONPATH"} & environment.keys()


async def test_an_environment_is_made_once_and_again_when_its_requirements_change(tmp_path: Path) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("# Nothing.\n", encoding="utf-8")
    python = await environment_python("peer", requirements, envs=tmp_path / "envs")
    assert subprocess.run([python, "-c", "pass"], check=True).returncode == 0
    mark = python.parent / "mark"
    mark.touch()
    assert await environment_python("peer", requirements, envs=tmp_path / "envs") == python
    assert mark.exists()
    requirements.write_text("# Still nothing.\n", encoding="utf-8")
    await environment_python("peer", requirements, envs=tmp_path / "envs")
    assert not mark.exists()


async def test_a_folder_that_is_no_environment_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "peer").mkdir()
    (tmp_path / "peer" / "thesis.txt").touch()
    requirements = tmp_path / "requirements.txt"
    requirements.touch()
    with pytest.raises(PeerError, match="choose another --envs"):
        await environment_python("peer", requirements, envs=tmp_path)
    assert (tmp_path / "peer" / "thesis.txt").exists()
