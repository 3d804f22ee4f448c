from pathlib import Path

import pytest

from pruning.cascade import AGREEMENTS
from pruning.cascades import calibrate_cascades
from pruning.pipeline import build_variant
from pruning.spec import PruneSpec
from pruning.workbench import Workbench
from service.ladder_cascades import ladder_cascades
from service.policy_desk import PolicyDesk


@pytest.fixture
def bench(tiny_model_dir: Path, tiny_rows: tuple[Path, Path], tmp_path: Path) -> Workbench:
    bench = Workbench.open(tiny_model_dir, *tiny_rows, tmp_path)
    bench.calibrate()
    return bench


async def test_every_level_has_its_cascades_in_the_order_of_the_ladder_and_the_policy_may_name_them(
    bench: Workbench,
) -> None:
    dense, most, half = (build_variant(bench, PruneSpec(sparsity=sparsity)) for sparsity in (0.0, 0.75, 0.5))
    calibrate_cascades(bench, [dense, most, half])
    ladder = [dense.variant_id, most.variant_id, half.variant_id]
    found = ladder_cascades(bench.store, ladder)
    assert [(one.sparsity, one.cascade.target) for one in found] == [
        (sparsity, target) for sparsity in (0.75, 0.5) for target in AGREEMENTS
    ]
    assert all(one.level.variant_id == one.cascade.variant_id for one in found)
    desk = PolicyDesk.of(bench.store, ladder, 0.0)
    await desk.change({"cascade": {"sparsity": 0.5, "agreement": 0.98}})
    assert desk.chosen_cascades == (found[3],)


def test_a_level_whose_dense_model_is_not_on_the_ladder_has_none(bench: Workbench) -> None:
    dense, half = (build_variant(bench, PruneSpec(sparsity=sparsity)) for sparsity in (0.0, 0.5))
    calibrate_cascades(bench, [dense, half])
    assert ladder_cascades(bench.store, [half.variant_id]) == ()
