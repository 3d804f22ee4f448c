from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from pruning.data import LabelledSet
from pruning.encoder import BaseModel
from pruning.scores import FisherLabelFree
from tests.pruning.library import gradients_of, logits_of_row
from tests.pruning.parts import random_calibration, reference_model, scored, with_sums


def test_a_neuron_scores_its_true_fisher_information(base: BaseModel, train: LabelledSet) -> None:
    rows, name = train.subset(range(0, 40, 8)), "layers.1.ffn_out.weight"
    model, expected_F = reference_model(base), torch.zeros(base.shape.ffn)
    for sequence in rows.sequences:
        p_C = functional.softmax(logits_of_row(model, sequence), dim=0).detach()
        for label in range(base.shape.labels):
            model.zero_grad()
            functional.log_softmax(logits_of_row(model, sequence), dim=0)[label].backward()
            expected_F += p_C[label] * (base.tensors[name] * gradients_of(model)[name]).sum(0).square()
    sums = scored(base, rows, FisherLabelFree())
    scores = FisherLabelFree().structures(base, with_sums(random_calibration(base), sums))
    torch.testing.assert_close(scores.neurons_LF[1], expected_F, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("batch_rows", [1, 7, 40])
def test_the_size_of_a_batch_does_not_matter_to_structures(
    base: BaseModel, train: LabelledSet, batch_rows: int
) -> None:
    one, other = (scored(base, train, FisherLabelFree(), batch_rows=rows) for rows in (8, batch_rows))
    torch.testing.assert_close(one["heads_LN"], other["heads_LN"], rtol=1e-3, atol=1e-8)
    torch.testing.assert_close(one["neurons_LF"], other["neurons_LF"], rtol=1e-3, atol=1e-8)


def test_the_weights_of_one_row_a_batch_are_exact(base: BaseModel, train: LabelledSet) -> None:
    rows, name = train.subset([4, 30]), "layers.0.query.weight"
    model, expected_OI = reference_model(base), torch.zeros_like(base.tensors[name])
    for sequence in rows.sequences:
        p_C = functional.softmax(logits_of_row(model, sequence), dim=0).detach()
        for label in range(base.shape.labels):
            model.zero_grad()
            functional.log_softmax(logits_of_row(model, sequence), dim=0)[label].backward()
            expected_OI += p_C[label] * (base.tensors[name] * gradients_of(model)[name]).square()
    sums = scored(base, rows, FisherLabelFree(), batch_rows=1)
    torch.testing.assert_close(sums[name], expected_OI, rtol=1e-3, atol=1e-4 * float(expected_OI.max()))


def test_labels_do_not_matter(base: BaseModel, train: LabelledSet) -> None:
    one, other = (scored(base, rows, FisherLabelFree()) for rows in (train, replace(train, labels=1 - train.labels)))
    assert all(torch.equal(one[name], other[name]) for name in one)
