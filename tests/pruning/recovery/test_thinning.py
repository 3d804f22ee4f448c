"""Gradual cuts, from a spec to the store."""

from dataclasses import replace
from pathlib import Path

import pytest

from pruning.data import LabelledSet
from pruning.errors import SpecError
from pruning.recovery.checkpoint import Checkpoints
from pruning.recovery.criteria import STRUCTURE_CRITERIA
from pruning.recovery.distillation import recover
from pruning.recovery.recipe import Criterion
from pruning.recovery.thinning import cubic, over_at
from pruning.recovery.training import Progress
from pruning.slim.convert import layer_widths
from pruning.spec import Pattern, PruneSpec, Structures
from pruning.workbench import Workbench
from tests.pruning.recovery.conftest import GRADUAL, HALF, ZEROS


def test_the_schedule_is_cubic_between_two_shares_of_the_run() -> None:
    assert [cubic(share) for share in (0.0, 0.5, 1.0)] == [0.0, 0.875, 1.0]
    recipe = replace(GRADUAL, gradual_from=0.2, gradual=0.6)
    assert [over_at(recipe, share) for share in (0.2, 0.4, 0.6, 0.9)] == pytest.approx([0.0, 0.5, 1.0, 1.0])


def test_a_run_too_short_to_thin_slowly_still_ends_thin(bench: Workbench, rows: LabelledSet) -> None:
    manifest, _ = recover(bench, HALF, rows, replace(GRADUAL, steps=1, gradual=1.0))
    assert manifest.achieved_sparsity == pytest.approx(0.5, abs=0.1)
    short = replace(GRADUAL, steps=1, cut_every=9, criterion=Criterion.PLATON)
    assert recover(bench, ZEROS, rows, short)[0].achieved_sparsity == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize(
    ("criterion", "step"),
    [(Criterion.MASK_GRADIENT, step) for step in (2, 5)] + [(one, 5) for one in STRUCTURE_CRITERIA][1:],
)
def test_a_gradual_run_that_was_killed_and_resumed_equals_one_that_was_not(
    bench: Workbench, rows: LabelledSet, tmp_path: Path, criterion: Criterion, step: int
) -> None:
    def kill(progress: Progress) -> None:
        if progress.step == step:
            raise KeyboardInterrupt

    recipe = replace(GRADUAL, criterion=criterion)
    _, whole = recover(bench, HALF, rows, recipe)
    other = replace(bench, root=tmp_path / "other")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "calibration").symlink_to(bench.cache.folder)
    with pytest.raises(KeyboardInterrupt):
        recover(other, HALF, rows, recipe, report=kill)
    assert Checkpoints(other.root, f"{whole.cut}-{whole.recipe_id}").newest()[0].step == step - step % 2
    _, resumed = recover(other, HALF, rows, recipe, resume=True)
    assert resumed.digest == whole.digest


def test_single_weights_go_to_the_sparsity_of_the_spec(bench: Workbench, rows: LabelledSet) -> None:
    recipe = replace(GRADUAL, criterion=Criterion.MAGNITUDE)
    manifest, recovered = recover(bench, ZEROS, rows, recipe)
    assert manifest.achieved_sparsity == pytest.approx(0.5, abs=1e-4)
    assert recovered.recipe["criterion"] == "magnitude"
    by_platon, _ = recover(bench, ZEROS, rows, replace(recipe, criterion=Criterion.PLATON))
    assert by_platon.variant_id != manifest.variant_id


def test_whole_sublayers_go_one_after_the_other_too(bench: Workbench, rows: LabelledSet) -> None:
    _, recovered = recover(bench, replace(HALF, structures=Structures.SUBLAYERS), rows, GRADUAL)
    heads, neurons = layer_widths(bench.recovered.load(recovered), bench.base.shape)
    assert {*heads, *neurons} == {0, bench.base.shape.num_heads, bench.base.shape.ffn}


def test_what_cannot_go_bit_by_bit_is_refused(bench: Workbench, rows: LabelledSet) -> None:
    with pytest.raises(SpecError, match="'mask_gradient' ranks heads and neurons; for single weights"):
        recover(bench, ZEROS, rows, GRADUAL)
    with pytest.raises(SpecError, match=r"structures='heads\+units\+neurons' use gradual=0"):
        recover(bench, replace(HALF, structures=Structures.UNITS), rows, GRADUAL)
    with pytest.raises(SpecError, match="pattern='2:4' is cut at once: use gradual=0"):
        recover(bench, PruneSpec(sparsity=0.5, pattern=Pattern.TWO_FOUR), rows, GRADUAL)
    with pytest.raises(SpecError, match="without rounds=4: use 1, or gradual=0"):
        recover(bench, PruneSpec(sparsity=0.5, rounds=4), rows, GRADUAL)
