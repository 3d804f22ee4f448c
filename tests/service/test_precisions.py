import pytest

from pruning.spec import Precision
from service.precisions import Choice, DenseReading, fastest_within


def reading(precision: Precision, accuracy: float, items_per_s: float) -> DenseReading:
    return DenseReading(precision=precision, accuracy=accuracy, items_per_s=items_per_s)


PLAIN = reading(Precision.FLOAT32, 0.900, 100.0)


@pytest.mark.parametrize(
    ("accuracy", "chosen"),
    [(0.91, "int8"), (0.895, "int8"), (0.894, "bfloat16")],
    ids=["better", "at the limit", "beyond"],
)
def test_the_fastest_that_loses_half_a_point_at_most_is_chosen(accuracy: float, chosen: str) -> None:
    readings = [PLAIN, reading(Precision.BFLOAT16, 0.9, 150.0), reading(Precision.INT8, accuracy, 200.0)]
    assert fastest_within(readings) == chosen


def test_where_no_other_precision_is_faster_it_stays_float32() -> None:
    assert fastest_within([PLAIN, reading(Precision.BFLOAT16, 0.95, 90.0)]) is Precision.FLOAT32
    assert fastest_within([PLAIN]) is Precision.FLOAT32


def test_a_choice_is_told_with_all_readings() -> None:
    choice = Choice(precision=Precision.FLOAT32, readings=[PLAIN, reading(Precision.INT8, 0.8, 200.0)])
    assert choice.words() == (
        "precision float32, the fastest within 0.5 points of float32 "
        "(dense: float32 90.0%, 100 texts/s; int8 80.0%, 200 texts/s)"
    )
    assert choice.as_dict()["readings"][1] == {"precision": "int8", "accuracy": 0.8, "items_per_s": 200.0}
