import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning.files import ASIDE_LIVES_S, CHUNK_BYTES, digest_of, new_folder, sha256_of, sweep_asides, write_json
from tests.pruning.parts import everything_under

plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1])
def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * size)
    assert sha256_of(path) == hashlib.sha256(b"x" * size).hexdigest()


@given(value=st.dictionaries(st.text(), plain_values))
def test_the_digest_of_a_value_does_not_depend_on_key_order(value: dict[str, object]) -> None:
    assert digest_of(dict(reversed(value.items()))) == digest_of(value)


def test_a_value_that_json_cannot_hold_has_no_digest() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        digest_of({"accuracy": float("nan")})


@given(value=plain_values)
def test_json_is_read_back_as_written(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.mktemp("json") / "value.json"
    write_json(path, value)
    assert json.loads(path.read_text(encoding="utf-8")) == value


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_json(tmp_path / "value.json", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "value.json", object())
    assert json.loads((tmp_path / "value.json").read_text()) == 1
    assert everything_under(tmp_path) == ["value.json"]


def test_a_failed_rename_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    write_json(tmp_path / "value.json", 1)
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        write_json(tmp_path / "value.json", 2)
    assert json.loads((tmp_path / "value.json").read_text()) == 1
    assert everything_under(tmp_path) == ["value.json"]


def test_a_folder_appears_only_when_its_block_ends_well(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "target"
    with new_folder(target, "file") as aside:
        (aside / "file").write_text("whole")
        assert not target.exists()
    assert everything_under(tmp_path) == ["deep", "deep/target", "deep/target/file"]


def test_a_block_that_fails_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="half-way"), new_folder(tmp_path / "target", "file") as aside:
        (aside / "file").write_text("half")
        raise RuntimeError("half-way")
    assert everything_under(tmp_path) == []


def test_the_folder_that_another_writer_finished_meanwhile_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "target"
    with new_folder(target, "file") as slower:
        (slower / "file").write_text("slower")
        with new_folder(target, "file") as faster:
            (faster / "file").write_text("faster")
    assert (target / "file").read_text() == "faster"
    assert everything_under(tmp_path) == ["target", "target/file"]


def test_a_rename_that_fails_for_another_reason_is_reported(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("a file stands where the folder should")
    with pytest.raises(OSError), new_folder(tmp_path / "target", "file") as aside:
        (aside / "file").write_text("whole")
    assert everything_under(tmp_path) == ["target"]


@pytest.mark.parametrize("left", [["weights"], []], ids=["without its record", "empty"])
def test_a_folder_that_lost_its_record_makes_room_for_the_new_one(tmp_path: Path, left: list[str]) -> None:
    target = tmp_path / "target"
    target.mkdir()
    for name in left:
        (target / name).write_text("old")
    with new_folder(target, "record") as aside:
        (aside / "record").write_text("new")
    assert everything_under(tmp_path) == ["target", "target/record"]


def test_the_folder_of_a_writer_that_also_makes_room_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "weights").write_text("old")
    with new_folder(target, "record") as slower:
        (slower / "record").write_text("slower")
        with new_folder(target, "record") as faster:
            (faster / "record").write_text("faster")
    assert (target / "record").read_text() == "faster"
    assert everything_under(tmp_path) == ["target", "target/record"]


@pytest.mark.parametrize("then", ["nothing yet", "its own there"])
def test_another_writer_may_make_room_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "weights").write_text("old")
    rename = Path.rename

    def overtaken(path: Path, to: Path) -> Path:
        if path != target:
            return rename(path, to)
        shutil.rmtree(target)
        if then == "nothing yet":
            raise FileNotFoundError(2, "No such file or directory", str(path))
        target.mkdir()
        (target / "record").write_text("faster")
        return to

    monkeypatch.setattr(Path, "rename", overtaken)
    with new_folder(target, "record") as aside:
        (aside / "record").write_text("mine")
    assert (target / "record").read_text() == ("mine" if then == "nothing yet" else "faster")
    assert everything_under(tmp_path) == ["target", "target/record"]


def left_aside_in(root: Path) -> list[Path]:
    """What a write of each kind leaves in ``root`` and in a folder in it when its process is killed."""
    script = (
        "import os, sys; from pathlib import Path; from pruning import files\n"
        "root = Path(sys.argv[1])\n"
        "def killed(*_): os._exit(9)\n"
        "if sys.argv[2] == 'json': files.os.fsync = killed; files.write_json(root / 'value.json', 1)\n"
        "with files.new_folder(root / 'kind' / 'target', 'record') as aside:\n"
        "    (aside / 'record').write_text('half'); os._exit(9)\n"
    )
    for kind in ("json", "folder"):
        assert subprocess.run([sys.executable, "-c", script, str(root), kind], check=False).returncode == 9
    found = sorted(root.rglob(".*.aside"))
    assert len(found) == 2
    return found


def test_what_killed_writers_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    write_json(tmp_path / "value.json", 0)
    with new_folder(tmp_path / "kind" / "whole", "record") as aside:
        write_json(aside / "record", 0)
    (tmp_path / ".hidden").touch()
    (tmp_path / ".env.settings").touch()
    (tmp_path / "target.aside").mkdir()
    before = everything_under(tmp_path)
    left = left_aside_in(tmp_path)
    assert sorted(sweep_asides(tmp_path, older_than_s=-1)) == left
    assert everything_under(tmp_path) == before


def test_what_may_still_be_written_is_not_swept(tmp_path: Path) -> None:
    young, old = left_aside_in(tmp_path)
    past = young.stat().st_mtime - ASIDE_LIVES_S - 1
    os.utime(old, (past, past))
    assert sweep_asides(tmp_path) == [old]
    assert young.exists()


def test_a_link_is_swept_and_not_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / ".x.aside").symlink_to(tmp_path / "precious")
    assert len(sweep_asides(tmp_path / "root", older_than_s=-1)) == 1
    assert everything_under(tmp_path) == ["precious", "root"]


def test_of_an_absent_store_nothing_is_swept(tmp_path: Path) -> None:
    assert sweep_asides(tmp_path / "absent") == []
