from typing import Any

import pytest

from pruning import ceiling as module
from pruning.ceiling import ROWS, ceiling, matrix_sizes, product
from pruning.encoder import BaseModel
from pruning.slim.quantized import multiplies_integers
from pruning.spec import Precision


def test_a_ceiling_is_looked_for_with_the_models_own_matrices(base: BaseModel) -> None:
    assert {(32, 64), (64, 32), (32, 96)} < set(matrix_sizes(base.shape))


def test_the_ceiling_is_the_rate_of_the_best_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([1.0, 0.5])

    def timed(work: Any) -> float:
        work()
        return next(seconds)

    monkeypatch.setattr(module, "_best_seconds", timed)
    assert ceiling(Precision.FLOAT32, [(8, 16), (8, 24)]) == ROWS * 8 * 24 / 0.5


@pytest.mark.parametrize("precision", Precision)
def test_what_is_timed_is_one_product_of_all_rows(precision: Precision) -> None:
    if precision is Precision.INT8 and not multiplies_integers():
        pytest.skip("this machine does not multiply integers")
    assert product(precision, 16, 24)().shape == (ROWS, 24)
