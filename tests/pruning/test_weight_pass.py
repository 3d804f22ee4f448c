from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pruning import memory
from pruning.capture import capture
from pruning.data import LabelledSet
from pruning.encoder import BaseModel
from pruning.errors import CacheError, DataError, HostMemoryError
from pruning.memory import weight_pass_bytes
from pruning.tensor_sizes import PRUNABLE_SLOTS
from pruning.watched import Noise
from pruning.weight_pass import Loss, Plan, Reading, seed_of, weight_pass
from tests.pruning.library import computed_tokens, gradients_of, hooked, logits_of_row, summed_loss
from tests.pruning.parts import Recorder, readings_of, reference_model

RELATIVE = Noise(sigma=0.1, relative=True, draws=2)


@pytest.fixture(scope="module")
def few(train: LabelledSet) -> LabelledSet:
    """Six rows of different lengths."""
    return train.subset(range(0, 36, 6))


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5 * max(1.0, float(other.abs().max())))


def only(readings: list[Reading]) -> Reading:
    (reading,) = readings
    return reading


def test_gradients_are_those_of_the_summed_loss(base: BaseModel, few: LabelledSet) -> None:
    model = reference_model(base)
    summed_loss(model, few).backward()
    expected = gradients_of(model)
    reading = only(readings_of(base, few))
    assert reading.gradients.keys() == expected.keys()
    assert len(expected) == 2 * len(base.prunable_weights())
    for name, gradient in expected.items():
        close(reading.gradients[name], gradient)


def test_inputs_and_outputs_are_those_of_every_linear_layer_over_the_tokens_that_it_computes(
    base: BaseModel, few: LabelledSet
) -> None:
    model = reference_model(base)
    inputs: dict[str, list[Tensor]] = {}
    outputs: dict[str, list[Tensor]] = {}

    def note(name: str, inputs_TI: Tensor, outputs_TO: Tensor) -> None:
        tokens = computed_tokens(name, base.shape.num_layers)
        inputs.setdefault(name, []).append(inputs_TI[tokens])
        outputs.setdefault(name, []).append(outputs_TO[tokens])

    with torch.no_grad(), hooked(model, note):
        summed_loss(model, few)
    seen = only(readings_of(base, few)).sightings
    assert seen.input_squares.keys() == inputs.keys()
    for name in inputs:
        close(seen.input_squares[name], torch.cat(inputs[name]).square().sum(0))
        close(seen.output_means[name], torch.cat(outputs[name]).mean(0))
        close(seen.output_deviations[name], torch.cat(outputs[name]).std(correction=0))


def test_a_mask_gradient_is_the_sum_of_weight_times_gradient_over_the_structures_output_weights(
    base: BaseModel, few: LabelledSet
) -> None:
    reading = only(readings_of(base, few))
    for layer in range(base.shape.num_layers):
        sums = {}
        for slot in ("attention_output", "ffn_out"):
            name = f"layers.{layer}.{slot}.weight"
            sums[slot] = (base.tensors[name] * reading.gradients[name]).sum(0)
        close(reading.head_gradients_BLN.sum(0)[layer], sums["attention_output"].view(base.shape.num_heads, -1).sum(1))
        close(reading.neuron_gradients_BLF.sum(0)[layer], sums["ffn_out"])


def test_a_qk_unit_counts_the_same_on_the_side_of_the_queries_and_of_the_keys(
    base: BaseModel, few: LabelledSet
) -> None:
    gradients = only(readings_of(base, few)).gradients
    for layer in range(base.shape.num_layers):
        query, key = (
            (base.tensors[f"{name}.weight"] * gradients[f"{name}.weight"]).sum(1)
            + base.tensors[f"{name}.bias"] * gradients[f"{name}.bias"]
            for name in (f"layers.{layer}.query", f"layers.{layer}.key")
        )
        close(query, key)


def test_mask_gradients_are_those_of_the_calibration(base: BaseModel, few: LabelledSet) -> None:
    captured = capture(base, few, micro_batch=1, progress=lambda done, total: None)
    reading = only(readings_of(base, few))
    close(reading.head_gradients_BLN, torch.stack(captured.head_gradients_LN))
    close(reading.neuron_gradients_BLF, torch.stack(captured.neuron_gradients_LF))


def test_every_row_is_read_once(base: BaseModel, train: LabelledSet) -> None:
    readings = readings_of(base, train, batch_rows=12)
    assert sorted(reading.num_rows for reading in readings) == [4, 12, 12, 12]
    together = only(readings_of(base, train, batch_rows=40))
    for name in base.prunable_weights():
        close(sum((reading.gradients[name] for reading in readings), torch.zeros(())), together.gradients[name])


@pytest.mark.parametrize("plan", [Plan(), Plan(noise=RELATIVE), Plan(loss=Loss.OWN)], ids=["plain", "noise", "own"])
def test_a_batch_reads_the_same_wherever_it_stands(base: BaseModel, train: LabelledSet, plan: Plan) -> None:
    blocks = [list(range(start, start + 8)) for start in range(0, 40, 8)]
    moved = train.subset([row for block in reversed(blocks) for row in block])
    here, there = (
        sorted(float(reading.gradients["layers.0.key.weight"].abs().sum()) for reading in readings_of(base, rows, plan))
        for rows in (train, moved)
    )
    assert here == pytest.approx(there, rel=1e-4)


def test_batches_are_not_visited_from_the_shortest_rows_to_the_longest(base: BaseModel, train: LabelledSet) -> None:
    readings = readings_of(base, train, Plan(loss=Loss.NOTHING), batch_rows=1)
    tokens = [float(reading.sightings.input_squares["layers.0.key.weight"].sum()) for reading in readings]
    longest = sorted(range(len(tokens)), key=lambda index: tokens[index])[-10:]
    assert min(longest) < 20


def test_noise_of_no_size_changes_nothing(base: BaseModel, few: LabelledSet) -> None:
    plain = only(readings_of(base, few))
    silent = only(readings_of(base, few, Plan(noise=Noise(sigma=0.0, relative=True, draws=3))))
    for name in base.prunable_weights():
        close(silent.gradients[name], plain.gradients[name])
    close(silent.head_gradients_BLN, plain.head_gradients_BLN)


def test_a_noisy_gradient_is_the_mean_over_the_draws_with_noise_on_every_linear_layer(
    base: BaseModel, train: LabelledSet
) -> None:
    row = train.subset([30])
    model, num_layers = reference_model(base), base.shape.num_layers
    reading = only(readings_of(base, row, Plan(noise=RELATIVE)))
    deviations: dict[str, Tensor] = {}

    def note(name: str, inputs_TI: Tensor, outputs_TO: Tensor) -> None:
        deviations[name] = outputs_TO[computed_tokens(name, num_layers)].std(correction=0)

    with torch.no_grad(), hooked(model, note):
        summed_loss(model, row)

    def gradients(generator: torch.Generator) -> dict[str, Tensor]:
        drawn: dict[str, Tensor] = {}

        def shake(name: str, inputs_TI: Tensor, outputs_TO: Tensor) -> Tensor:
            # Of the last layer we compute one token of some outputs: nothing reads the others.
            tokens = computed_tokens(name, num_layers)
            noise_TO = torch.zeros_like(outputs_TO)
            drawn[name] = torch.randn(outputs_TO[tokens].shape, generator=generator)
            noise_TO[tokens] = 0.1 * deviations[name] * drawn[name]
            return outputs_TO + noise_TO

        model.zero_grad()
        with hooked(model, shake):
            summed_loss(model, row).backward()
        assert len(drawn) == len(base.prunable_weights()) + 2
        return gradients_of(model)

    generator = torch.Generator().manual_seed(seed_of(row.sequences))
    first, second = gradients(generator), gradients(generator)
    plain = only(readings_of(base, row)).gradients
    for name in base.prunable_weights():
        close(reading.gradients[name], (first[name] + second[name]) / 2)
    assert not torch.allclose(reading.gradients["layers.0.key.weight"], plain["layers.0.key.weight"], rtol=0.01)


def test_own_labels_give_the_true_fisher_information_row_by_row_under_random_signs(
    base: BaseModel, few: LabelledSet
) -> None:
    readings = readings_of(base, few, Plan(loss=Loss.OWN))
    assert len(readings) == base.shape.labels
    squares_BLN = sum((reading.head_gradients_BLN.square() for reading in readings), torch.zeros(()))
    model, signs = reference_model(base), set()
    for index, sequence in enumerate(few.sequences):
        expected_LN = torch.zeros(base.shape.num_layers, base.shape.num_heads)
        p_C = functional.softmax(logits_of_row(model, sequence), dim=0).detach()
        for label in range(base.shape.labels):
            model.zero_grad()
            functional.log_softmax(logits_of_row(model, sequence), dim=0)[label].backward()
            gradients = gradients_of(model)
            for layer in range(base.shape.num_layers):
                name = f"layers.{layer}.attention_output.weight"
                heads_N = (base.tensors[name] * gradients[name]).sum(0).view(base.shape.num_heads, -1).sum(1)
                expected_LN[layer] += p_C[label] * heads_N.square()
                signs.add(float((readings[label].head_gradients_BLN[index, layer] @ heads_N).sign()))
        torch.testing.assert_close(squares_BLN[index], expected_LN, rtol=1e-3, atol=1e-7)
    assert signs == {1.0, -1.0}


def test_own_labels_do_not_ask_for_the_rows(base: BaseModel, few: LabelledSet) -> None:
    unlabelled = replace(few, labels=torch.full((len(few),), -100))
    labelled, without = (readings_of(base, rows, Plan(loss=Loss.OWN)) for rows in (few, unlabelled))
    for one, other in zip(labelled, without, strict=True):
        assert torch.equal(one.gradients["layers.1.ffn_in.weight"], other.gradients["layers.1.ffn_in.weight"])


def test_without_a_loss_there_are_no_gradients_and_no_labels_are_asked_for(base: BaseModel, few: LabelledSet) -> None:
    reading = only(readings_of(base, replace(few, labels=torch.empty(0)), Plan(loss=Loss.NOTHING)))
    assert reading.gradients == {}
    with_loss = only(readings_of(base, few)).sightings
    for name, squares in reading.sightings.input_squares.items():
        close(squares, with_loss.input_squares[name])


@pytest.mark.parametrize("label", [-100, -1, 2])
def test_a_row_without_a_label_is_refused_by_its_number(base: BaseModel, few: LabelledSet, label: int) -> None:
    labels = few.labels.clone()
    labels[3] = label
    with pytest.raises(DataError, match=rf"row {few.numbers[3]}, .*has no label of this model \({label}, not 0 to 1\)"):
        readings_of(base, replace(few, labels=labels))


def test_rows_without_labels_are_refused_with_the_remedy(base: BaseModel, few: LabelledSet) -> None:
    with pytest.raises(DataError, match=r"6 rows have 0 labels; .* wanda or fisher_label_free"):
        readings_of(base, replace(few, labels=torch.empty(0)))


@pytest.mark.parametrize(("plan", "named"), [(Plan(), 1), (Plan(noise=RELATIVE), 8), (Plan(loss=Loss.NOTHING), 8)])
def test_what_is_not_finite_is_refused_naming_the_rows(
    base: BaseModel, train: LabelledSet, plan: Plan, named: int
) -> None:
    """Gradients tell a row from those that share its batch; inputs alone do not, nor does noise by their size."""
    last = train.sequences[-1]
    odd = replace(last, ids=[1, *last.ids[1:]])  # a token that stands in the last row alone
    rows = replace(train, sequences=(*train.sequences[:-1], odd))
    table = base.tensors["embeddings.word.weight"].clone()
    table[1] = float("nan")
    bad = replace(base, tensors={**base.tensors, "embeddings.word.weight": table})
    numbers = ", ".join(map(str, rows.numbers[-named:]))
    with pytest.raises(CacheError, match=rf"rows? {numbers}, counted from 1, are not finite in layer 0; check these"):
        readings_of(bad, rows, plan)


def test_the_pass_leaves_the_base_model_as_it_was(base: BaseModel, few: LabelledSet) -> None:
    before = {name: tensor.clone() for name, tensor in base.tensors.items()}
    readings_of(base, few)
    assert all(torch.equal(base.tensors[name], tensor) for name, tensor in before.items())
    assert not any(tensor.requires_grad for tensor in base.tensors.values())


def test_the_same_pass_twice_gives_the_same_numbers(base: BaseModel, few: LabelledSet) -> None:
    for plan in (Plan(), Plan(noise=RELATIVE), Plan(loss=Loss.OWN)):
        one, two = (readings_of(base, few, plan)[-1].gradients for _ in range(2))
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_progress_counts_the_rows_to_the_last_and_a_breath_follows_every_batch(
    base: BaseModel, train: LabelledSet
) -> None:
    seen: list[tuple[int, int]] = []
    breaths: list[None] = []
    weight_pass(
        base,
        train,
        Plan(),
        Recorder(),
        batch_rows=10,
        progress=lambda done, total: seen.append((done, total)),
        breath=lambda: breaths.append(None),
    )
    assert seen == [(10, 40), (20, 40), (30, 40), (40, 40)]
    assert len(breaths) == 4


def test_every_prunable_slot_is_watched(base: BaseModel, few: LabelledSet) -> None:
    seen = only(readings_of(base, few)).sightings
    slots = {name.split(".")[2] for name in seen.output_means if name.startswith("layers.")}
    assert slots == set(PRUNABLE_SLOTS)


@pytest.mark.parametrize("loss", [Loss.NOTHING, Loss.LABELS])
def test_a_pass_that_would_not_fit_is_refused_before_it_begins(
    base: BaseModel, few: LabelledSet, monkeypatch: pytest.MonkeyPatch, loss: Loss
) -> None:
    lengths = [len(sequence.ids) for sequence in few.sequences]
    needed = weight_pass_bytes(base.shape, lengths, 8, differentiated=loss is Loss.LABELS)
    monkeypatch.setattr(memory, "available_bytes", lambda: needed)
    readings_of(base, few, Plan(loss=loss))
    monkeypatch.setattr(memory, "available_bytes", lambda: needed - 1)
    with pytest.raises(HostMemoryError, match=f"this scorer's pass over the rows needs about {needed} bytes"):
        readings_of(base, few, Plan(loss=loss))
