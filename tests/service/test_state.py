import errno
import json
import os
import stat
from pathlib import Path

import pytest

from pruning.files import digest_of
from service.operations import RolloutState
from service.rollout import advance
from service.state import SCHEMA, StateDamaged, StateFile, StateFileError, StateUnwritable
from tests.service.control_parts import HALF, choice_of, first_state
from tests.service.rollout_parts import after, broken, built, change, reported, rollback

NAN = b'{"schema": 2, "sha256": "", "state": {"version": NaN}}'
"""What no writer leaves, and no digest can be made of."""


def rich_state() -> RolloutState:
    """A state with every member filled in."""
    state = after(first_state(), change(), built(), reported())
    state = after(state, change(operation_id="f"), rollback("r"), reported(of="r", now=31.0))
    return after(state, change(HALF, "x"), broken("x"), change(HALF, "y"), built(operation_id="y"))


@pytest.fixture
def file(tmp_path: Path) -> StateFile:
    return StateFile(tmp_path / "store" / "state.json")


@pytest.mark.parametrize("state", [first_state(), rich_state()])
def test_a_state_read_is_the_state_written(file: StateFile, state: RolloutState) -> None:
    file.write(state)
    assert file.read() == state


def test_no_file_is_no_state(file: StateFile) -> None:
    assert file.read() is None


@pytest.mark.parametrize("keep", [0, 1, 40, -1])
def test_a_truncated_file_is_refused_by_name_and_left_alone(file: StateFile, keep: int) -> None:
    file.write(rich_state())
    cut = file.path.read_bytes()[:keep]
    file.path.write_bytes(cut)
    with pytest.raises(StateDamaged, match=r"state\.json.*restore it from a backup, or delete it"):
        file.read()
    assert file.path.read_bytes() == cut


def test_an_altered_value_is_refused_by_its_checksum(file: StateFile) -> None:
    file.write(rich_state())
    file.path.write_text(file.path.read_text().replace('"generation": 3', '"generation": 4', 1))
    with pytest.raises(StateDamaged, match="checksum"):
        file.read()


@pytest.mark.parametrize("raw", [b"[]", b"null", b"\xff\xfe", b'{"schema": 1}', b"{}", NAN])
def test_something_else_in_its_place_is_refused(file: StateFile, raw: bytes) -> None:
    file.path.parent.mkdir()
    file.path.write_bytes(raw)
    with pytest.raises(StateDamaged):
        file.read()


def test_another_schema_is_refused_by_number(file: StateFile) -> None:
    file.write(first_state())
    values = json.loads(file.path.read_text())
    file.path.write_text(json.dumps(values | {"schema": SCHEMA + 1}))
    with pytest.raises(StateDamaged, match=f"schema {SCHEMA + 1}"):
        file.read()


def test_an_unknown_member_under_a_right_checksum_is_refused(file: StateFile) -> None:
    file.write(first_state())
    values = json.loads(file.path.read_text())
    values["state"]["surprise"] = 1
    file.path.write_text(json.dumps(values | {"sha256": digest_of(values["state"])}))
    with pytest.raises(StateDamaged, match="surprise"):
        file.read()


def test_a_file_that_is_a_folder_cannot_be_read(file: StateFile) -> None:
    file.path.mkdir(parents=True)
    with pytest.raises(StateFileError, match=r"state\.json cannot be read"):
        file.read()


def test_a_full_disk_leaves_the_old_state_and_nothing_else(file: StateFile, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write(first_state())
    state, _ = advance(first_state(), change())

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StateUnwritable, match=r"state\.json could not be written: No space left on device"):
        file.write(state)
    monkeypatch.undo()
    assert file.read() == first_state()
    assert [path.name for path in file.path.parent.iterdir()] == ["state.json"]


def test_a_state_in_place_is_written_even_if_its_folder_cannot_be_synced(
    file: StateFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert file.write(first_state())
    state, _ = advance(first_state(), change())
    sync = os.fsync

    def failing_folders(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", failing_folders)
    assert not file.write(state)
    assert file.read() == state
    monkeypatch.undo()
    assert file.write(state)


def test_the_choice_survives_with_its_operation(file: StateFile) -> None:
    state = RolloutState(version=3, generation=2, committed=choice_of(HALF, operation_id="op1"), previous=choice_of())
    file.write(state)
    assert file.read() == state


def test_a_file_from_before_operations_named_who_asked_is_an_operators(file: StateFile) -> None:
    state, _ = advance(first_state(), change())
    file.write(state)
    values = json.loads(file.path.read_text())
    for member in ("asked_by", "reason"):
        del values["state"]["operation"][member]
    file.path.write_text(json.dumps(values | {"sha256": digest_of(values["state"])}))
    assert file.read() == state
