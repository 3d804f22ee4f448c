from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pruning import memory
from pruning.capture import BATCH_ROWS, capture
from pruning.data import LabelledSet
from pruning.encoder import BaseModel
from pruning.errors import HostMemoryError
from pruning.memory import available_bytes, capture_bytes, require_memory, training_bytes, weight_pass_bytes

MEMINFO = "MemTotal:       16000000 kB\nMemFree:         1000000 kB\nMemAvailable:    3000000 kB\n"


def cgroup_of(folder: Path, limit: str, used: int, inactive: int) -> Path:
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {inactive}\n")
    return folder


@pytest.fixture
def meminfo(tmp_path: Path) -> Path:
    path = tmp_path / "meminfo"
    path.write_text(MEMINFO)
    return path


def test_without_a_limit_the_machine_gives_what_it_has(meminfo: Path, tmp_path: Path) -> None:
    assert available_bytes(meminfo, tmp_path / "absent") == 3_000_000 * 1024
    assert available_bytes(meminfo, cgroup_of(tmp_path, "max", 5, 5)) == 3_000_000 * 1024


def test_a_container_gives_no_more_than_its_limit_leaves(meminfo: Path, tmp_path: Path) -> None:
    assert available_bytes(meminfo, cgroup_of(tmp_path, "2000000", 700_000, 200_000)) == 1_500_000
    assert available_bytes(meminfo, cgroup_of(tmp_path, "2000000", 2_100_000, 0)) == 0


def test_where_no_file_says_it_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert available_bytes(tmp_path / "absent", tmp_path / "absent") is None
    monkeypatch.setattr(memory, "available_bytes", lambda: None)
    require_memory(1 << 60, "a pass", 7)


def test_a_refusal_names_both_numbers_and_what_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 5 << 20)
    require_memory(5 << 20, "a pass", 7)
    words = r"a pass needs about 6291456 bytes of memory \(6 MiB\) and there are 5242880 \(5 MiB\) to have; leave out"
    with pytest.raises(HostMemoryError, match=words + r" the longest rows \(the longest has 7 tokens\)"):
        require_memory(6 << 20, "a pass", 7)


def test_only_the_largest_batch_counts_not_how_many_there_are(base: BaseModel) -> None:
    shape = base.shape
    one = weight_pass_bytes(shape, [10] * 32, 32, differentiated=True)
    assert weight_pass_bytes(shape, [10] * 64, 32, differentiated=True) == one
    assert weight_pass_bytes(shape, [10] * 32 + [11] * 32, 32, differentiated=True) > one
    assert weight_pass_bytes(shape, [10] * 32, 32, differentiated=False) < one


def test_twice_the_layers_take_twice_the_memory(base: BaseModel) -> None:
    twice = replace(base.shape, num_layers=2 * base.shape.num_layers)
    assert capture_bytes(twice, [20] * 40, 32) == 2 * capture_bytes(base.shape, [20] * 40, 32)


def test_what_a_batch_keeps_for_its_way_back_is_no_more_than_estimated(base: BaseModel, train: LabelledSet) -> None:
    rows = train.subset(range(BATCH_ROWS))
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        capture(base, rows, micro_batch=4, progress=lambda done, total: None)
    estimate = memory._backward_bytes(base.shape, [len(sequence.ids) for sequence in rows.sequences], BATCH_ROWS)
    assert 0.3 * estimate < sum(kept.values()) < estimate + 8 * base.shape.prunable_weights


def test_a_training_needs_more_for_more_rows_wider_students_and_criteria(base: BaseModel) -> None:
    shape = base.shape

    def needed(heads: int = 4, neurons: int = 64, *, rows: int = 8, thins: bool = False, longest: int = 10) -> int:
        lengths = [10] * 40 + [longest]
        counts = [heads] * shape.num_layers, [neurons] * shape.num_layers
        return training_bytes(shape, *counts, lengths, rows, thins=thins)

    assert needed() == needed(longest=9)
    assert needed() < min(needed(rows=9), needed(thins=True), needed(longest=11))
    assert needed() > max(needed(heads=3), needed(neurons=48), needed(rows=7))
    assert needed() > 9 * 4 * shape.prunable_weights
