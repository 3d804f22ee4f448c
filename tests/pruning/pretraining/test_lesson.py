import pytest
import torch

from pruning.encoder import BaseModel
from pruning.pretraining.lesson import HiddenStates
from pruning.recovery.recipe import Recipe
from pruning.slim.convert import build_slim, slim_layers
from tests.pruning.parts import dense_model, mask_of, sequences_of


def test_the_score_is_what_is_met_of_the_hidden_states_every_piece_counting_alike(base: BaseModel) -> None:
    pieces = sequences_of((4, 9, 5, 8, 11, 6), vocabulary=base.shape.vocabulary)
    lesson = HiddenStates(Recipe(steps=1, batch_rows=4), dense_model(base), pieces, torch.device("cpu"))
    cut = build_slim(base, slim_layers(base, mask_of(base.shape, [[0], [1, 2]], [range(16), range(32)])))
    four, two = (float(lesson.losses(cut, part).total) for part in ((0, 1, 2, 3), (4, 5)))
    assert four != two
    assert lesson.score(cut, range(6)) == pytest.approx(1.0 - (4 * four + 2 * two) / 6)
    assert lesson.score(dense_model(base), range(6)) == pytest.approx(1.0, abs=0.01)
