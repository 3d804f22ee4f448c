import pytest
import torch
from torch import Tensor

from pruning.data import LabelledSet
from pruning.encoder import BaseModel
from pruning.scores import CamCut, CamCutShift
from tests.pruning.library import computed_tokens, gradients_of, hooked, summed_loss
from tests.pruning.parts import reference_model, scored


@pytest.mark.parametrize(("scorer", "shift"), [(CamCut(), 0.0), (CamCutShift(), 10.0)])
def test_a_weight_scores_its_size_times_gradient_times_mean_output_summed_over_batches(
    base: BaseModel, train: LabelledSet, scorer: CamCut, shift: float
) -> None:
    model = reference_model(base)
    expected = {name: torch.zeros_like(weight) for name, weight in base.prunable_weights().items()}
    for start in range(0, 24, 8):
        outputs: dict[str, list[Tensor]] = {}

        def note(name: str, _: Tensor, outputs_TO: Tensor, seen: dict[str, list[Tensor]] = outputs) -> None:
            seen.setdefault(name, []).append(outputs_TO.detach()[computed_tokens(name, base.shape.num_layers)])

        model.zero_grad()
        with hooked(model, note):
            summed_loss(model, train.subset(range(start, start + 8))).backward()
        gradients = gradients_of(model)
        for name, weight_OI in base.prunable_weights().items():
            mean_O = torch.cat(outputs[name]).mean(0)
            expected[name] += (weight_OI * gradients[name] * (shift + mean_O[:, None])).abs()
    scores = scored(base, train.subset(range(24)), scorer)
    for name, score_OI in expected.items():
        torch.testing.assert_close(scores[name], score_OI, rtol=1e-2, atol=1e-5 * float(score_OI.max()))
