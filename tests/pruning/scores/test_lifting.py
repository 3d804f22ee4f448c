import torch

from pruning.encoder import BaseModel
from pruning.scores.lifting import lifted, structure_sums


def test_a_structure_scores_the_mean_of_the_weights_that_it_owns(base: BaseModel) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = {name: torch.rand(weight.shape, generator=generator) for name, weight in base.prunable_weights().items()}
    own = slice(16, 24)
    head = torch.cat(
        [scores[f"layers.1.{slot}.weight"][own].flatten() for slot in ("query", "key", "value")]
        + [scores["layers.1.attention_output.weight"][:, own].flatten()]
    )
    neuron = torch.cat([scores["layers.0.ffn_in.weight"][63], scores["layers.0.ffn_out.weight"][:, 63]])
    means = lifted(base.shape, scores)
    torch.testing.assert_close(means.heads_LN[1, 2], head.mean())
    torch.testing.assert_close(means.neurons_LF[0, 63], neuron.mean())
    torch.testing.assert_close(structure_sums(base.shape, scores).heads_LN[1, 2], head.sum())


def test_every_weight_is_owned_once(base: BaseModel) -> None:
    ones = {name: torch.ones_like(weight) for name, weight in base.prunable_weights().items()}
    sums = structure_sums(base.shape, ones)
    assert int(sums.heads_LN.sum() + sums.neurons_LF.sum()) == base.shape.prunable_weights


def test_weights_of_one_score_make_heads_and_neurons_of_that_score(base: BaseModel) -> None:
    means = lifted(base.shape, {name: torch.full_like(w, 3.0) for name, w in base.prunable_weights().items()})
    assert set(means.heads_LN.unique().tolist()) == set(means.neurons_LF.unique().tolist()) == {3.0}
