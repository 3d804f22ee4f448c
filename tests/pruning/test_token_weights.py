"""What a token counts in a Gram matrix."""

import torch
from torch import Tensor

from pruning.capture import Captured, Capturing
from pruning.encoder import BaseModel
from pruning.gates import Gates
from pruning.slim.bert import Site


def gram_of(base: BaseModel, inputs_TF: Tensor, sums_TD: Tensor) -> Tensor:
    """Return the sum over tokens of one sequence, each divided by what they all weigh."""
    captured = Captured()
    tap = Capturing(captured, Gates(base.shape, 1), base.norm_eps).tap
    sequence_T = torch.zeros(len(inputs_TF), dtype=torch.long)
    tap(0, Site.FFN, inputs_TF, sequence_T)
    tap(0, Site.FFN_SUM, sums_TD.requires_grad_(), sequence_T)
    return captured.grams[0, Site.FFN]


def test_a_token_counts_the_same_however_large_all_that_it_has_is(base: BaseModel) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs_TF = torch.randn(5, base.shape.ffn, generator=generator)
    sums_TD = torch.randn(5, base.shape.hidden, generator=generator)
    massive_T1 = torch.tensor([[1000.0], [1.0], [1.0], [1.0], [1.0]])
    usual = gram_of(base, inputs_TF, sums_TD.clone())
    torch.testing.assert_close(gram_of(base, massive_T1 * inputs_TF, massive_T1 * sums_TD), usual, rtol=1e-4, atol=1e-4)


def test_a_token_without_any_variance_is_no_division_by_zero(base: BaseModel) -> None:
    gram = gram_of(base, torch.ones(2, base.shape.ffn), torch.ones(2, base.shape.hidden))
    assert torch.isfinite(gram).all()
