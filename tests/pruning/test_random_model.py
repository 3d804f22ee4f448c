import pytest
import torch

from pruning.cost import Shape
from pruning.encoder import BaseModel
from pruning.errors import SpecError
from pruning.masks.structures import ROUND_TO
from pruning.random_model import SHAPES, even_mask, random_model, random_sequences, shape_named
from pruning.slim.convert import build_slim, slim_layers
from tests.pruning.parts import logits_of


def test_bert_base_has_the_weights_that_its_paper_says() -> None:
    shape = shape_named("bert-base")
    assert shape.prunable_weights == 12 * (4 * 768 * 768 + 2 * 768 * 3072)
    assert set(SHAPES) == {"bert-base", "bert-large"}


def test_an_unknown_shape_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(SpecError, match="unknown shape 'bert-huge'; known: bert-base, bert-large"):
        shape_named("bert-huge")


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9])
def test_an_even_cut_of_random_weights_answers_with_finite_logits(base: BaseModel, sparsity: float) -> None:
    made = random_model("random", base.shape)
    model = build_slim(made, slim_layers(made, even_mask(base.shape, sparsity)))
    logits = logits_of(model, random_sequences([4, 9], 6, base.shape.vocabulary))
    assert logits.shape == (6, 2)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.8])
def test_an_even_cut_removes_the_share_that_was_asked_for_in_every_layer(name: str, sparsity: float) -> None:
    shape = shape_named(name)
    mask = even_mask(shape, sparsity)
    assert mask.sparsity(shape) == pytest.approx(sparsity, abs=2e-3)
    assert len(set(mask.head_counts)) == len(set(mask.neuron_counts)) == 1
    assert all(count % ROUND_TO == 0 for count in mask.neuron_counts)


def test_no_cut_takes_the_last_head_or_block_of_neurons(base: BaseModel) -> None:
    mask = even_mask(base.shape, 0.999)
    assert (set(mask.head_counts), set(mask.neuron_counts)) == ({1}, {ROUND_TO})


def test_random_sequences_take_their_lengths_in_turn_and_are_the_same_every_time() -> None:
    shape: Shape = shape_named("bert-base")
    made = random_sequences([3, 5], 5, shape.vocabulary)
    assert [len(sequence.ids) for sequence in made] == [3, 5, 3, 5, 3]
    assert [one.ids for one in made] == [one.ids for one in random_sequences([3, 5], 5, shape.vocabulary)]
