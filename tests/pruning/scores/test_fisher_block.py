import torch
from hypothesis import given
from hypothesis import strategies as st

from pruning.encoder import BaseModel
from pruning.scores import Fisher, FisherBlock
from pruning.scores.fisher_block import removal_ranks
from tests.pruning.parts import random_calibration


def order_of(gradients_MU: torch.Tensor) -> list[int]:
    """Return the structures in the order in which they go."""
    return removal_ranks(gradients_MU).argsort().tolist()


@given(seed=st.integers(min_value=0, max_value=2**32), structures=st.integers(min_value=1, max_value=8))
def test_every_step_is_the_one_that_raises_the_objective_least(seed: int, structures: int) -> None:
    gradients = torch.randn(3, structures, generator=torch.Generator().manual_seed(seed))
    gone: list[int] = []
    for chosen in order_of(gradients):
        left = [unit for unit in range(structures) if unit not in gone]
        after = {unit: float(gradients[:, [*gone, unit]].double().sum(1).square().sum()) for unit in left}
        assert after[chosen] <= min(after.values()) + 1e-6
        gone.append(chosen)


def test_structures_that_cancel_each_other_go_together() -> None:
    gradients = torch.tensor([[1.0, 1.5, -1.0], [1.0, 1.5, -1.0]])
    assert set(order_of(gradients)[:2]) == {0, 2}


def test_orthogonal_gradients_give_the_order_of_the_diagonal() -> None:
    assert order_of(torch.diag(torch.tensor([3.0, 1.0, 4.0, 2.0]))) == [1, 3, 0, 2]


def test_of_equal_structures_the_lower_index_stays_longest() -> None:
    assert order_of(torch.zeros(2, 4)) == [3, 2, 1, 0]


def test_a_score_is_a_rank_in_its_layer(base: BaseModel) -> None:
    scores = FisherBlock().structures(base, random_calibration(base))
    assert scores.heads_LN.sort(dim=1).values.tolist() == [[0.25, 0.5, 0.75, 1.0]] * 2
    assert scores.neurons_LF.shape == (2, 64)


def test_single_weights_score_as_by_fisher(base: BaseModel) -> None:
    calibration = random_calibration(base)
    one, other = (scorer.weights(base, calibration) for scorer in (FisherBlock(), Fisher()))
    assert all(torch.equal(one[name], other[name]) for name in one)
