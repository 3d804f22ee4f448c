import pytest
import torch

from pruning.data import LabelledSet
from pruning.encoder import BaseModel
from pruning.scores import CamCut, SmoothCamCut, SmoothCamCutAbsolute, SmoothCut, SmoothCutAbsolute
from tests.pruning.parts import readings_of, scored


def test_a_weight_scores_its_size_times_its_noisy_gradient_summed_over_batches(
    base: BaseModel, train: LabelledSet
) -> None:
    rows = train.subset(range(24))
    for scorer in (SmoothCut(), SmoothCutAbsolute()):
        readings = readings_of(base, rows, scorer.plan)
        scores = scored(base, rows, scorer)
        for name, weight in base.prunable_weights().items():
            expected = sum(((weight * reading.gradients[name]).abs() for reading in readings), torch.zeros(()))
            torch.testing.assert_close(scores[name], expected)


def test_the_noise_is_relative_and_the_papers_is_absolute() -> None:
    relative, absolute = SmoothCut.plan.noise, SmoothCutAbsolute.plan.noise
    assert relative is not None and absolute is not None
    assert (relative.sigma, relative.relative, relative.draws) == (0.05, True, 10)
    assert (absolute.sigma, absolute.relative, absolute.draws) == (0.001, False, 10)


def test_noise_is_a_share_of_each_layers_outputs_or_the_same_everywhere() -> None:
    deviations = {"weak": torch.tensor(0.1), "strong": torch.tensor(100.0)}
    zeros = torch.zeros(400, 50)
    for noise, wanted in ((SmoothCut.plan.noise, (0.005, 5.0)), (SmoothCutAbsolute.plan.noise, (0.001, 0.001))):
        assert noise is not None
        watch = noise.watch(deviations, torch.Generator().manual_seed(0))
        for name, sigma in zip(deviations, wanted, strict=True):
            torch.testing.assert_close(watch(name, zeros, zeros).std(), torch.tensor(sigma), rtol=0.05, atol=0)


@pytest.mark.parametrize(
    ("scorer", "alike"), [(SmoothCamCut(), SmoothCut()), (SmoothCamCutAbsolute(), SmoothCutAbsolute())]
)
def test_both_together_are_cam_cut_of_noisy_gradients(
    base: BaseModel, train: LabelledSet, scorer: SmoothCamCut, alike: SmoothCut
) -> None:
    rows = train.subset(range(16))
    readings = readings_of(base, rows, scorer.plan)
    scores = scored(base, rows, scorer)
    assert scorer.plan == alike.plan
    for name, weight in base.prunable_weights().items():
        terms = [CamCut().term(name, weight, reading) for reading in readings]
        torch.testing.assert_close(scores[name], sum(terms, torch.zeros(())))
