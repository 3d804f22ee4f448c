from dataclasses import replace
from pathlib import Path

import pytest

from pruning.errors import ChecksumError, StoreError
from pruning.pipeline import build_variant
from pruning.spec import PruneSpec
from pruning.workbench import Workbench
from service.floor import BelowFloor
from service.operations import RolloutState
from service.preflight import check_floor, check_store
from service.state import STATE, StateFile


@pytest.fixture
def bench(tiny_model_dir: Path, tiny_rows: tuple[Path, Path], tmp_path: Path) -> Workbench:
    bench = Workbench.open(tiny_model_dir, *tiny_rows, tmp_path)
    bench.calibrate()
    return bench


def committed(bench: Workbench, sparsity: float) -> StateFile:
    """Return a state file that says this level was served last."""
    file = StateFile(bench.root / STATE)
    file.write(RolloutState.first(build_variant(bench, PruneSpec(sparsity=sparsity))))
    return file


def test_a_whole_store_of_this_model_passes(bench: Workbench) -> None:
    file = committed(bench, 0.5)
    check_store(bench, [build_variant(bench, PruneSpec(sparsity=0.0)).variant_id], file)


def test_a_store_that_never_served_passes(bench: Workbench) -> None:
    check_store(bench, [build_variant(bench, PruneSpec(sparsity=0.0)).variant_id], StateFile(bench.root / STATE))


@pytest.mark.parametrize("where", ["ladder", "committed"])
def test_an_altered_variant_that_would_be_served_is_refused_by_name(bench: Workbench, where: str) -> None:
    file = committed(bench, 0.5)
    dense = build_variant(bench, PruneSpec(sparsity=0.0)).variant_id
    served = build_variant(bench, PruneSpec(sparsity=0.5)).variant_id
    path = bench.store.folder / (dense if where == "ladder" else served) / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ChecksumError, match=path.parent.name):
        check_store(bench, [dense], file)


def test_a_store_of_another_model_is_refused(bench: Workbench) -> None:
    file = committed(bench, 0.5)
    other = Workbench(replace(bench.base, labels=("bad", "good")), bench.train, bench.evaluation, bench.root)
    with pytest.raises(StoreError, match="of another model"):
        check_store(other, [], file)


def test_a_damaged_state_file_is_refused(bench: Workbench) -> None:
    file = committed(bench, 0.5)
    file.path.write_text(file.path.read_text()[:-20])
    with pytest.raises(StoreError, match=r"state\.json"):
        check_store(bench, [], file)


def variants(bench: Workbench) -> tuple[str, str, float]:
    """Return (dense variant, half of it, the half's accuracy)."""
    dense, half = (build_variant(bench, PruneSpec(sparsity=sparsity)) for sparsity in (0.0, 0.5))
    return dense.variant_id, half.variant_id, half.evaluation.accuracy


def test_a_first_start_below_the_floor_is_refused_with_both_numbers_and_the_remedy(bench: Workbench) -> None:
    dense, half, accuracy = variants(bench)
    file = StateFile(bench.root / STATE)
    floor = accuracy + 0.01
    with pytest.raises(BelowFloor, match=rf"0\.5 .* {accuracy:.4f} is below the floor {floor:.4f}; begin with a lower"):
        check_floor(bench.store, [dense, half], half, floor, file)
    assert check_floor(bench.store, [dense, half], half, accuracy, file) == []


def test_the_default_floor_is_under_the_dense_accuracy(bench: Workbench) -> None:
    dense, half, _ = variants(bench)
    assert check_floor(bench.store, [dense, half], dense, None, StateFile(bench.root / STATE)) == []


def test_a_committed_variant_below_the_floor_is_a_warning_whatever_the_first_one_would_be(bench: Workbench) -> None:
    file = committed(bench, 0.5)
    dense, half, accuracy = variants(bench)
    (words,) = check_floor(bench.store, [dense, half], half, accuracy + 0.01, file)
    assert half in words and f"{accuracy:.4f}" in words
    assert check_floor(bench.store, [dense, half], half, accuracy, file) == []


def test_a_committed_variant_of_other_rows_is_a_warning(bench: Workbench, tiny_rows: tuple[Path, Path]) -> None:
    file = committed(bench, 0.5)
    other = Workbench.open(bench.base.path, tiny_rows[0], tiny_rows[0], bench.root)
    dense, half, _ = variants(other)
    (words,) = check_floor(other.store, [dense, half], dense, 0.0, file)
    assert "other rows" in words
