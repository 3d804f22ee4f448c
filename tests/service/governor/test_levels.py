from dataclasses import replace

import pytest

from service.governor.levels import Bounds
from tests.service.governor.simulation import LEVELS, ladder


def rungs(**bounds: object) -> list[str]:
    given = {"levels": LEVELS, "slo_p99_s": 0.1, "accuracy_floor": 0.0, **bounds}
    return [level.name for level in Bounds(**given).rungs()]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("bounds", "names"),
    [
        ({}, ["0", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6"]),
        ({"accuracy_floor": 0.88}, ["0", "0.1", "0.2"]),
        ({"min_sparsity": 0.2, "max_sparsity": 0.4}, ["0.2", "0.3", "0.4"]),
        ({"barred": frozenset({"v0", "v2"}), "max_sparsity": 0.3}, ["0.1", "0.3"]),
        ({"accuracy_floor": 0.99}, []),
    ],
)
def test_only_what_the_bounds_admit_may_answer(bounds: dict[str, object], names: list[str]) -> None:
    assert rungs(**bounds) == names


def test_a_sparser_level_that_is_no_faster_is_no_rung() -> None:
    assert rungs(levels=ladder(1.0, 0.9, 1.01, 1.5, 1.4, 2.0)) == ["0", "0.3", "0.5"]


def test_of_levels_of_one_sparsity_the_slower_comes_first() -> None:
    dense, *_ = LEVELS
    whole = replace(dense, variant_id="int8", name="0 int8", items_per_s=1900.0)
    assert rungs(levels=(whole, *LEVELS)) == ["0", "0 int8", "0.4", "0.5", "0.6"]
