import hashlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning.files import CHUNK_BYTES, digest_of, new_folder, sha256_of, write_json
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
    with new_folder(target) as aside:
        (aside / "file").write_text("whole")
        assert not target.exists()
    assert everything_under(tmp_path) == ["deep", "deep/target", "deep/target/file"]


def test_a_block_that_fails_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="half-way"), new_folder(tmp_path / "target") as aside:
        (aside / "file").write_text("half")
        raise RuntimeError("half-way")
    assert everything_under(tmp_path) == []


def test_the_folder_that_another_writer_finished_meanwhile_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "target"
    with new_folder(target) as slower:
        (slower / "file").write_text("slower")
        with new_folder(target) as faster:
            (faster / "file").write_text("faster")
    assert (target / "file").read_text() == "faster"
    assert everything_under(tmp_path) == ["target", "target/file"]


def test_a_rename_that_fails_for_another_reason_is_reported(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("a file stands where the folder should")
    with pytest.raises(OSError), new_folder(tmp_path / "target") as aside:
        (aside / "file").write_text("whole")
    assert everything_under(tmp_path) == ["target"]
