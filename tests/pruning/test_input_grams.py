import pytest
import torch

from pruning import memory
from pruning.capture import BATCH_ROWS
from pruning.data import LabelledSet
from pruning.encoder import BaseModel
from pruning.errors import HostMemoryError
from pruning.input_grams import CALIBRATED, gram_of, input_grams
from pruning.memory import input_grams_bytes, weight_pass_bytes
from pruning.workbench import Workbench
from tests.pruning.library import computed_tokens, hooked, summed_loss
from tests.pruning.parts import reference_model


@pytest.fixture(scope="module")
def few(train: LabelledSet) -> LabelledSet:
    """Six rows of different lengths."""
    return train.subset(range(0, 36, 6))


def test_weights_have_the_gram_matrix_of_the_inputs_that_the_library_gives_them_or_the_calibration_s(
    base: BaseModel, few: LabelledSet, bench: Workbench
) -> None:
    bench = Workbench(base, few, bench.evaluation, bench.root)
    bench.calibrate()
    model = reference_model(base)
    inputs: dict[str, list[torch.Tensor]] = {}

    def note(name: str, inputs_TI: torch.Tensor, outputs_TO: torch.Tensor) -> None:
        inputs.setdefault(name, []).append(inputs_TI[computed_tokens(name, base.shape.num_layers)])

    with torch.no_grad(), hooked(model, note):
        summed_loss(model, few)
    grams = bench.input_grams()
    for name in base.prunable_weights():
        gram = gram_of(name, bench.calibration, grams)
        _, layer, slot, _ = name.split(".")
        if slot in CALIBRATED:
            assert gram is bench.calibration.grams[int(layer), CALIBRATED[slot]]
            continue
        rows_RI = torch.cat(inputs[name]).double()
        expected = rows_RI.T @ rows_RI
        torch.testing.assert_close(gram.double(), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_the_pass_is_taken_once_and_then_read(bench: Workbench) -> None:
    seen: list[tuple[int, int]] = []
    first = bench.input_grams(lambda done, total: seen.append((done, total)))
    assert seen == [(32, 40), (40, 40)]
    second = bench.input_grams(lambda done, total: seen.append((done, total)))
    assert len(seen) == 2
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_there_is_a_breath_after_every_batch(base: BaseModel, train: LabelledSet) -> None:
    breaths: list[None] = []
    input_grams(base, train, breath=lambda: breaths.append(None))
    assert len(breaths) == 2


def test_the_matrices_themselves_count_in_what_the_pass_needs(base: BaseModel, few: LabelledSet) -> None:
    lengths = [len(sequence.ids) for sequence in few.sequences]
    held = sum(gram_II.untyped_storage().nbytes() for gram_II in input_grams(base, few).values())
    passing = weight_pass_bytes(base.shape, lengths, BATCH_ROWS, differentiated=False)
    assert input_grams_bytes(base.shape, lengths, BATCH_ROWS) == passing + held


def test_a_pass_that_would_not_fit_is_refused(
    base: BaseModel, few: LabelledSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 1000)
    with pytest.raises(HostMemoryError, match="the pass for input Gram matrices needs about"):
        input_grams(base, few)
