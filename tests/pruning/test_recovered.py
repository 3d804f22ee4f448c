from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pruning.errors import CacheError, ChecksumError, PruningError, StoreError
from pruning.recovered import CHOSEN, LAYERS, RECORD, RecoveredCut, RecoveredCuts
from tests.pruning.parts import everything_under, flip_byte

CUT = RecoveredCut(cut="c" * 16, recipe_id="r" * 16, recipe={"steps": 3}, training={"step": 3})
TENSORS = {"layers.0.a": torch.arange(4.0)}


@pytest.fixture
def recovered(tmp_path: Path) -> RecoveredCuts:
    made = RecoveredCuts(tmp_path)
    made.put(CUT, TENSORS)
    made.choose(CUT.cut, CUT.recipe_id)
    return made


def test_what_was_put_comes_back(recovered: RecoveredCuts) -> None:
    found = recovered.chosen(CUT.cut)
    assert found is not None and replace(found, layers_sha256="") == CUT
    assert torch.equal(recovered.load(found)["layers.0.a"], TENSORS["layers.0.a"])


def test_what_is_not_there_is_none(recovered: RecoveredCuts) -> None:
    assert recovered.chosen("d" * 16) is None
    assert recovered.find(CUT.cut, "s" * 16) is None


def test_other_weights_of_the_same_recipe_are_another_cut(recovered: RecoveredCuts, tmp_path: Path) -> None:
    elsewhere = RecoveredCuts(tmp_path / "elsewhere")
    elsewhere.put(CUT, {"layers.0.a": torch.ones(4)})
    one, other = (store.find(CUT.cut, CUT.recipe_id) for store in (recovered, elsewhere))
    assert one and other and one.digest != other.digest


def test_a_choice_stands_until_the_next(recovered: RecoveredCuts) -> None:
    recovered.put(replace(CUT, recipe_id="s" * 16), TENSORS)
    chosen = recovered.chosen(CUT.cut)
    assert chosen and chosen.recipe_id == CUT.recipe_id
    recovered.choose(CUT.cut, "s" * 16)
    chosen = recovered.chosen(CUT.cut)
    assert chosen and chosen.recipe_id == "s" * 16


@pytest.mark.parametrize("name", [f"{CUT.recipe_id}/{LAYERS}", f"{CUT.recipe_id}/{RECORD}", CHOSEN])
def test_a_damaged_file_is_refused_with_the_remedy(recovered: RecoveredCuts, name: str) -> None:
    path = recovered.folder / CUT.cut / name
    if name.endswith(LAYERS):
        flip_byte(path)
    else:
        path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(PruningError, match="run 'sparsedial recover' again"):
        found = recovered.chosen(CUT.cut)
        assert found is not None
        recovered.load(found)


def test_an_altered_record_is_refused(recovered: RecoveredCuts) -> None:
    path = recovered.folder / CUT.cut / CUT.recipe_id / RECORD
    path.write_text(path.read_text(encoding="utf-8").replace('"step": 3', '"step": 4'), encoding="utf-8")
    with pytest.raises(ChecksumError, match="does not match its checksum"):
        recovered.chosen(CUT.cut)


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    store = RecoveredCuts(tmp_path)
    store.put(CUT, {"layers.0.a": torch.tensor([float("inf")])})
    found = store.find(CUT.cut, CUT.recipe_id)
    assert found is not None
    with pytest.raises(CacheError, match=r"layers\.0\.a has values that are not finite"):
        store.load(found)


def test_a_disk_that_is_full_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("pruning.recovered.write_json", fail)
    store = RecoveredCuts(tmp_path)
    with pytest.raises(StoreError, match="No space left on device; free space"):
        store.put(CUT, TENSORS)
    with pytest.raises(StoreError, match="No space left on device; free space"):
        store.choose(CUT.cut, CUT.recipe_id)
    assert everything_under(store.folder) == [CUT.cut]
