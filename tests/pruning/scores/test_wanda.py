import pytest
import torch
from torch import Tensor

from pruning.data import LabelledSet
from pruning.encoder import BaseModel
from pruning.scores import Wanda
from pruning.spec import Scope
from tests.pruning.library import computed_tokens, hooked, summed_loss
from tests.pruning.parts import random_calibration, reference_model, scored, with_sums


def test_a_weight_scores_its_size_times_the_norm_of_its_input(base: BaseModel, train: LabelledSet) -> None:
    inputs: dict[str, list[Tensor]] = {}

    def note(name: str, inputs_TI: Tensor, outputs_TO: Tensor) -> None:
        inputs.setdefault(name, []).append(inputs_TI[computed_tokens(name, base.shape.num_layers)])

    model = reference_model(base)
    with torch.no_grad(), hooked(model, note):
        summed_loss(model, train)
    scores = Wanda().weights(base, with_sums(random_calibration(base), scored(base, train, Wanda())))
    for name, weight in base.prunable_weights().items():
        expected = weight.abs() * torch.cat(inputs[name]).norm(dim=0)
        torch.testing.assert_close(scores[name], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("batch_rows", [1, 7, 40])
def test_the_size_of_a_batch_does_not_matter(base: BaseModel, train: LabelledSet, batch_rows: int) -> None:
    one, other = (scored(base, train, Wanda(), batch_rows=rows) for rows in (8, batch_rows))
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=0)


def test_weights_compete_within_a_row() -> None:
    assert Wanda.scope is Scope.ROW
