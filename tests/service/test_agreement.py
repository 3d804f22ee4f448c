import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from service.agreement import NAMED_LABELS, compared, length_bucket
from service.tally import Compared

LABELS = ("no", "yes")


def test_texts_are_told_apart_by_the_variants_label_and_by_length() -> None:
    mine = np.array([[2.0, 0.0], [0.0, 2.0], [0.0, 2.0]])
    dense = np.array([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0]])
    slices = {(one.label, one.length): one for one in compared(mine, dense, [5, 9, 9], LABELS)}
    assert slices["no", "1-8"] == Compared(label="no", length="1-8", texts=1, agreed=1, kl_sum=0.0)
    flipped = slices["yes", "9-16"]
    assert (flipped.texts, flipped.agreed) == (2, 1)
    probability = 1 / (1 + np.exp(-2.0))
    assert flipped.kl_sum == pytest.approx((2 * probability - 1) * 2.0)


def test_the_divergence_is_of_the_variant_from_the_dense_model() -> None:
    undecided, three_to_one = np.array([[0.0, 0.0]]), np.array([[0.0, np.log(3.0)]])
    (one,) = compared(undecided, three_to_one, [1], LABELS)
    assert one.kl_sum == pytest.approx(0.25 * np.log(0.25 / 0.5) + 0.75 * np.log(0.75 / 0.5))


@pytest.mark.parametrize(("tokens", "bucket"), [(1, "1-8"), (8, "1-8"), (9, "9-16"), (32, "17-32"), (512, "257-512")])
def test_buckets_double(tokens: int, bucket: str) -> None:
    assert length_bucket(tokens) == bucket


def test_rare_labels_share_a_slice() -> None:
    logits = np.eye(NAMED_LABELS + 2)[-2:]
    labels = [f"l{number}" for number in range(NAMED_LABELS + 2)]
    (slice_,) = compared(logits, logits, [1, 1], labels)
    assert (slice_.label, slice_.texts) == ("other", 2)


@given(hnp.arrays(np.float32, (4, 3), elements=st.floats(-50, 50, width=32)), st.floats(-5, 5))
def test_a_model_agrees_with_itself_whatever_is_added_to_its_logits(logits: np.ndarray, shift: float) -> None:
    (*slices,) = compared(logits, logits + np.float32(shift), [3] * 4, ("a", "b", "c"))
    assert sum(one.texts for one in slices) == 4
    assert all(0.0 <= one.kl_sum < 1e-3 for one in slices)
