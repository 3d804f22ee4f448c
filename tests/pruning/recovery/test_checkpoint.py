import json
from pathlib import Path

import pytest
import torch

from pruning.errors import CacheError, PruningError, RecoveryError, StoreError
from pruning.recovery.checkpoint import RECORD, STATE, Checkpoints, Standing
from tests.pruning.parts import everything_under, flip_byte

STATE_NOW = {"weight.a": torch.arange(3.0), "mean.a": torch.ones(3)}
BEST = {"layers.0.a": torch.zeros(2)}


def standing(step: int) -> Standing:
    return Standing(
        step=step, seconds=1.5, score=0.8, first_score=0.7, best_score=0.9, best_step=2, reached=0.9, without_gain=1
    )


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    made = Checkpoints(tmp_path, "cut-recipe")
    made.put(standing(4), STATE_NOW, BEST)
    return made


def test_what_was_put_comes_back(checkpoints: Checkpoints) -> None:
    assert checkpoints
    found, state, best = checkpoints.newest()
    assert found == standing(4)
    assert state.keys() == STATE_NOW.keys() and torch.equal(state["weight.a"], STATE_NOW["weight.a"])
    assert best.keys() == BEST.keys()


def test_only_the_newest_stays(checkpoints: Checkpoints) -> None:
    checkpoints.put(standing(12), STATE_NOW, BEST)
    assert checkpoints.newest()[0].step == 12
    assert everything_under(checkpoints.folder) == ["00000012", f"00000012/{RECORD}", f"00000012/{STATE}"]


def test_a_writer_that_dies_leaves_the_checkpoint_before(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("pruning.recovery.checkpoint.write_json", die)
    before = everything_under(checkpoints.folder)
    with pytest.raises(StoreError, match="No space left on device; free space"):
        checkpoints.put(standing(8), STATE_NOW, BEST)
    assert everything_under(checkpoints.folder) == before
    assert checkpoints.newest()[0].step == 4


def test_a_folder_without_a_record_is_no_checkpoint(checkpoints: Checkpoints) -> None:
    (checkpoints.folder / "00000008").mkdir()
    assert checkpoints.newest()[0].step == 4


@pytest.mark.parametrize("name", [STATE, RECORD])
def test_an_altered_file_is_refused(checkpoints: Checkpoints, name: str) -> None:
    path = checkpoints.folder / "00000004" / name
    flip_byte(path, path.read_bytes().rindex(b"1") if name == RECORD else -1)
    with pytest.raises(PruningError, match=r"00000004.*train without --resume"):
        checkpoints.newest()


def test_a_cut_short_record_is_refused(checkpoints: Checkpoints) -> None:
    (checkpoints.folder / "00000004" / RECORD).write_text(json.dumps({"step": 4}), encoding="utf-8")
    with pytest.raises(RecoveryError, match="damaged"):
        checkpoints.newest()


def test_values_that_are_not_finite_are_refused(checkpoints: Checkpoints) -> None:
    checkpoints.put(standing(8), {"weight.a": torch.tensor([float("nan")])}, BEST)
    with pytest.raises(CacheError, match=r"weight\.a has values that are not finite"):
        checkpoints.newest()


def test_cleared_is_gone_with_everything_left_aside(checkpoints: Checkpoints) -> None:
    (checkpoints.folder / ".00000008.abc.aside").mkdir()
    checkpoints.clear()
    assert not checkpoints and not checkpoints.folder.exists()
    checkpoints.clear()
    with pytest.raises(RecoveryError, match="no checkpoint"):
        checkpoints.newest()
