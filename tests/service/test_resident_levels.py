from pathlib import Path

from pruning.spec import Precision, PruneSpec
from pruning.variants import VariantStore
from service.resident_levels import level_of, resident_levels
from tests.service.control_parts import DENSE, choice_of, id_of, manifest_of, put

HALF = PruneSpec(sparsity=0.5)


def test_every_level_of_the_ladder_is_there_in_its_order_with_its_speed(tmp_path: Path) -> None:
    store = VariantStore(tmp_path)
    put(store, HALF, accuracy=0.88, items_per_s=500.0)
    put(store, DENSE)
    put(store, PruneSpec(sparsity=0.7))
    levels = resident_levels(store, [id_of(DENSE), id_of(HALF)])
    assert [(one.name, one.accuracy, one.items_per_s) for one in levels] == [("0", 0.9, 250.0), ("0.5", 0.88, 500.0)]
    assert list(levels.values()) == [choice_of(DENSE), choice_of(HALF, accuracy=0.88)]


def test_a_precision_that_is_not_the_usual_one_is_part_of_the_name(tmp_path: Path) -> None:
    store = VariantStore(tmp_path)
    put(store, DENSE)
    whole = put(store, PruneSpec(sparsity=0.0, precision=Precision.INT8), edition="int8")
    assert [level.name for level in resident_levels(store, [id_of(DENSE), whole.variant_id])] == ["0", "0 int8"]


def test_any_variant_is_a_level_of_the_speed_that_is_known_of_it() -> None:
    level = level_of(manifest_of(HALF), items_per_s=99.0)
    assert (level.variant_id, level.sparsity, level.items_per_s) == (id_of(HALF), 0.5, 99.0)
