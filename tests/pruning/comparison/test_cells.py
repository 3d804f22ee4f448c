import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pruning.comparison.cells import Cell, CellStore, Worth, cell_name
from pruning.comparison.kept import Part, Sublayer
from pruning.comparison.training import Training
from pruning.errors import StoreError
from pruning.recovery.recipe import Recipe
from pruning.spec import PruneSpec
from pruning.workbench import Workbench
from tests.pruning.parts import everything_under

NAME = "0123456789abcdef"
CELL = Cell(
    spec=PruneSpec(sparsity=0.5, scorer="wanda"),
    seed=1,
    achieved_sparsity=0.49,
    macs=1000,
    worth=Worth(metric="accuracy", value=0.8, low=0.7, high=0.9, agreement=0.85, rows=30),
    kept=(Part(0, Sublayer.ATTENTION, 128, 2, 1, torch.tensor([True, False])),),
)


@pytest.fixture
def store(tmp_path: Path) -> CellStore:
    made = CellStore(tmp_path)
    made.put(NAME, CELL)
    return made


def test_a_cell_comes_back_as_it_was(store: CellStore) -> None:
    stored = store.find(NAME)
    assert stored is not None and stored.as_dict() == CELL.as_dict()
    assert stored.spec == CELL.spec and stored.worth == CELL.worth


def test_a_cell_that_was_never_made_is_none(store: CellStore) -> None:
    assert store.find("fedcba9876543210") is None


@pytest.mark.parametrize(
    "content", ["", "{", "{}", "[]", '{"cell": 3, "sha256": "x"}', '{"cell": {"a": NaN}, "sha256": ""}']
)
def test_a_damaged_cell_is_refused_naming_the_file_to_delete(store: CellStore, content: str) -> None:
    path = store.folder / f"{NAME}.json"
    path.write_text(content)
    with pytest.raises(StoreError, match=f"{NAME}.json is damaged .*; delete it, and the next comparison"):
        store.find(NAME)


def test_an_altered_cell_is_refused_naming_the_file_to_delete(store: CellStore) -> None:
    path = store.folder / f"{NAME}.json"
    stored = json.loads(path.read_text())
    stored["cell"]["worth"]["value"] = 0.99
    path.write_text(json.dumps(stored))
    with pytest.raises(StoreError, match=f"{NAME}.json does not match its checksum .*; delete it"):
        store.find(NAME)


def test_a_full_disk_is_reported_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pruning.comparison.cells.write_json", no_space)
    store = CellStore(tmp_path)
    with pytest.raises(StoreError, match=r"could not be written: .*No space left on device; free space"):
        store.put(NAME, CELL)
    assert everything_under(store.folder) == []


def test_every_cut_and_draw_has_a_name_of_its_own(bench: Workbench) -> None:
    spec = PruneSpec(sparsity=0.5)
    others = [replace(spec, sparsity=0.6), replace(spec, scorer="wanda"), replace(spec, recover="none")]
    redrawn = Workbench(bench.base, bench.train.subset(range(30)), bench.evaluation, bench.root, 1)
    trainings = [Training(Recipe(steps=steps), rows) for steps, rows in ((3, bench.train), (4, bench.evaluation))]
    trainings.append(Training(trainings[0].recipe, bench.evaluation))
    distilled = replace(spec, recover="distill")
    names = [cell_name(bench, one, None) for one in (spec, *others)] + [cell_name(redrawn, spec, None)]
    names += [cell_name(place, distilled, training) for place in (bench, redrawn) for training in trainings]
    assert len(set(names)) == len(names)
    assert cell_name(bench, spec, trainings[0]) == names[0]
