from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertForSequenceClassification

from pruning import capture as module
from pruning import memory
from pruning.architectures.bert import LAYER_SLOTS
from pruning.capture import BATCH_ROWS, Captured, capture
from pruning.data import LabelledSet
from pruning.encoder import BaseModel
from pruning.errors import CacheError, DataError, HostMemoryError
from pruning.gates import GATED
from pruning.memory import capture_bytes
from pruning.slim.bert import Site
from pruning.slim.packed import PackedBatch
from pruning.tensor_sizes import PRUNABLE_SLOTS
from tests.pruning.parts import dense_model, reference_model

CANCELLING = torch.tensor([2.0**40, -(2.0**40)])


def silent(done: int, total: int) -> None:
    pass


def captured_of(base: BaseModel, rows: LabelledSet, *, micro_batch: int = 1) -> Captured:
    return capture(base, rows, micro_batch=micro_batch, progress=silent)


def library_losses(model: BertForSequenceClassification, rows: LabelledSet) -> Iterator[Tensor]:
    """Yield the loss of each row by transformers, one row a batch."""
    for sequence, label in zip(rows.sequences, rows.labels, strict=True):
        logits = model(input_ids=torch.tensor([sequence.ids]), token_type_ids=torch.tensor([sequence.type_ids])).logits
        yield functional.cross_entropy(logits, label[None])


def weights_by_slot(model: BertForSequenceClassification) -> dict[str, nn.Parameter]:
    """Return the library's prunable weights under our names."""
    parameters = dict(model.named_parameters())
    return {
        f"layers.{layer}.{slot}.weight": parameters[f"bert.encoder.layer.{layer}.{LAYER_SLOTS[slot]}.weight"]
        for layer in range(model.config.num_hidden_layers)
        for slot in PRUNABLE_SLOTS
    }


@contextmanager
def captured_inputs(modules: Sequence[nn.Module]) -> Iterator[list[list[Tensor]]]:
    """Collect what goes into each module, call by call."""
    seen: list[list[Tensor]] = [[] for _ in modules]
    handles = [
        module.register_forward_pre_hook(lambda _, inputs, kept=kept: kept.append(inputs[0].detach()))
        for module, kept in zip(modules, seen, strict=True)
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@pytest.fixture(scope="module")
def few(train: LabelledSet) -> LabelledSet:
    """Nine rows of different lengths."""
    return train.subset(range(0, 36, 4))


def test_a_mask_gradient_is_the_sum_of_weight_times_gradient_over_the_structures_output_weights(
    base: BaseModel, few: LabelledSet
) -> None:
    captured = captured_of(base, few, micro_batch=len(few))
    model = reference_model(base)
    sum(library_losses(model, few), torch.zeros(())).backward()
    for layer in range(base.shape.num_layers):
        weights = weights_by_slot(model)
        products = {}
        for slot in ("attention_output", "ffn_out"):
            weight = weights[f"layers.{layer}.{slot}.weight"]
            assert weight.grad is not None
            products[slot] = (weight * weight.grad).sum(0).detach()
        heads = products["attention_output"].view(base.shape.num_heads, -1).sum(1)
        torch.testing.assert_close(captured.head_gradients_LN[0][layer], heads, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(captured.neuron_gradients_LF[0][layer], products["ffn_out"], rtol=1e-3, atol=1e-5)


def test_the_mean_weight_gradients_are_those_of_the_mean_loss(base: BaseModel, few: LabelledSet) -> None:
    captured = captured_of(base, few)
    model = reference_model(base)
    (sum(library_losses(model, few), torch.zeros(())) / len(few)).backward()
    for name, weight in weights_by_slot(model).items():
        torch.testing.assert_close(captured.weight_means[name], weight.grad, rtol=1e-3, atol=1e-5)


def test_the_squared_weight_gradients_are_of_whole_batches(base: BaseModel, train: LabelledSet) -> None:
    captured = captured_of(base, train)
    model = reference_model(base)
    squares: dict[str, Tensor] = {}
    for start in range(0, len(train), BATCH_ROWS):
        model.zero_grad()
        batch = train.subset(range(start, min(start + BATCH_ROWS, len(train))))
        sum(library_losses(model, batch), torch.zeros(())).backward()
        for name, weight in weights_by_slot(model).items():
            assert weight.grad is not None
            squares[name] = squares.get(name, torch.zeros(())) + weight.grad.square()
    for name, square in squares.items():
        mean = square / -(-len(train) // BATCH_ROWS)
        torch.testing.assert_close(captured.weight_squares[name], mean, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("site", GATED)
def test_a_gram_matrix_is_the_product_of_the_inputs_each_over_the_variance_that_its_norm_divides_by(
    base: BaseModel, few: LabelledSet, layer: int, site: Site
) -> None:
    model = reference_model(base)
    block = model.bert.encoder.layer[layer]
    output = block.attention.output if site is Site.ATTENTION else block.output
    with captured_inputs([output.dense, output.LayerNorm]) as (inputs, sums), torch.inference_mode():
        for _ in library_losses(model, few):
            pass
    # Of the last layer the head reads the first token alone.
    rows_RW, sums_RD = (torch.cat([part[0, :1] if layer == 1 else part[0] for part in seen]) for seen in (inputs, sums))
    weights_R = 1.0 / (sums_RD.double().var(1, correction=0) + base.norm_eps)
    weights_R /= weights_R.mean()
    expected = (rows_RW.double() * weights_R[:, None]).T @ rows_RW.double()
    torch.testing.assert_close(
        captured_of(base, few).grams[layer, site].double(), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max())
    )


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("site", GATED)
def test_the_output_gradient_is_that_of_the_sublayers_output(
    base: BaseModel, few: LabelledSet, layer: int, site: Site
) -> None:
    model = reference_model(base)
    block = model.bert.encoder.layer[layer]
    outputs: list[Tensor] = []

    def keep(_: nn.Module, inputs: object, output: Tensor) -> None:
        output.retain_grad()
        outputs.append(output)

    handle = (block.attention.output.dense if site is Site.ATTENTION else block.output.dense).register_forward_hook(
        keep
    )
    sum(library_losses(model, few), torch.zeros(())).backward()
    handle.remove()
    gradients = [output.grad[0] for output in outputs if output.grad is not None]
    # Of the last layer the head reads the first token alone: the library's other tokens have no gradient.
    expected = torch.cat(gradients).double().square().sum()
    torch.testing.assert_close(
        captured_of(base, few).output_gradient_squares[layer, site], expected, rtol=1e-3, atol=1e-9
    )


def test_the_last_layer_computes_one_token_a_row_and_the_others_all(base: BaseModel, few: LabelledSet) -> None:
    tokens = sum(len(sequence.ids) for sequence in few.sequences)
    assert captured_of(base, few).tokens == {0: tokens, 1: len(few)}


def test_mask_gradients_do_not_depend_on_the_order_of_the_rows(base: BaseModel, train: LabelledSet) -> None:
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0)).tolist()
    straight = torch.stack(captured_of(base, train).neuron_gradients_LF)
    shuffled = torch.stack(captured_of(base, train.subset(order)).neuron_gradients_LF)
    torch.testing.assert_close(shuffled, straight[order], rtol=1e-3, atol=1e-6)


def test_mask_gradients_do_not_depend_on_who_shares_the_batch(base: BaseModel, few: LabelledSet) -> None:
    together = captured_of(base, few)
    for index in range(len(few)):
        alone = captured_of(base, few.subset([index]))
        torch.testing.assert_close(together.head_gradients_LN[index], alone.head_gradients_LN[0], rtol=1e-3, atol=1e-6)


def test_gram_matrices_do_not_depend_on_the_order_of_the_rows(base: BaseModel, train: LabelledSet) -> None:
    straight, reversed_ = captured_of(base, train), captured_of(base, train.subset(range(len(train) - 1, -1, -1)))
    for place, gram in straight.grams.items():
        torch.testing.assert_close(reversed_.grams[place], gram, rtol=1e-4, atol=1e-5 * float(gram.abs().max()))


def test_a_micro_batch_is_the_sum_over_its_rows(base: BaseModel, train: LabelledSet) -> None:
    single = torch.stack(captured_of(base, train, micro_batch=1).head_gradients_LN)
    fours = torch.stack(captured_of(base, train, micro_batch=4).head_gradients_LN)
    torch.testing.assert_close(fours, single.view(10, 4, *single.shape[1:]).sum(1), rtol=1e-4, atol=1e-6)


def test_the_pass_leaves_the_base_model_as_it_was(base: BaseModel, few: LabelledSet) -> None:
    before = {name: tensor.clone() for name, tensor in base.tensors.items()}
    captured_of(base, few)
    assert all(torch.equal(base.tensors[name], tensor) for name, tensor in before.items())
    assert not any(tensor.requires_grad for tensor in base.tensors.values())


def test_the_same_pass_twice_gives_the_same_numbers(base: BaseModel, few: LabelledSet) -> None:
    one, two = captured_of(base, few), captured_of(base, few)
    assert torch.equal(torch.stack(one.neuron_gradients_LF), torch.stack(two.neuron_gradients_LF))
    assert all(torch.equal(one.grams[place], two.grams[place]) for place in one.grams)
    assert all(torch.equal(one.weight_squares[name], two.weight_squares[name]) for name in one.weight_squares)


def test_progress_counts_the_rows_to_the_last(base: BaseModel, train: LabelledSet) -> None:
    seen: list[tuple[int, int]] = []
    capture(base, train, micro_batch=4, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(32, 40), (40, 40)]


def spoiled(base: BaseModel, name: str, change: Any) -> BaseModel:
    tensors = dict(base.tensors)
    tensors[name] = tensors[name].clone()
    change(tensors[name])
    return replace(base, tensors=tensors)


def test_a_gradient_that_is_not_finite_is_refused_naming_the_rows(base: BaseModel, train: LabelledSet) -> None:
    # A token that stands in the last row alone, so that only the second batch is spoiled.
    last = train.sequences[-1]
    odd = replace(last, ids=[1, *last.ids[1:]])
    rows = replace(train, sequences=(*train.sequences[:-1], odd))
    assert rows.numbers[-1] != 40  # they are read shortest first, and named as they stand in their file
    bad = spoiled(base, "embeddings.word.weight", lambda table: table[1].fill_(float("nan")))
    with pytest.raises(CacheError, match=rf"training row {rows.numbers[-1]}, counted from 1, is not finite in layer 0"):
        captured_of(bad, rows)
    four = ", ".join(map(str, rows.numbers[36:]))
    with pytest.raises(CacheError, match=rf"training rows {four}, counted from 1, is not finite in layer 0"):
        captured_of(bad, rows, micro_batch=4)


def test_a_gradient_that_is_not_finite_is_refused_naming_the_layer(base: BaseModel, few: LabelledSet) -> None:
    # Two neurons of the last layer that cancel each other exactly: the output stays finite, and so does all that
    # comes before, but their own mask gradients, activation times weight times gradient, overflow.
    bad = spoiled(replace(base, activation="relu"), "layers.1.ffn_in.weight", lambda weight: weight[3:5].fill_(0.0))
    bad = spoiled(bad, "layers.1.ffn_in.bias", lambda bias: bias[3:5].fill_(2.0**86))
    bad = spoiled(bad, "layers.1.ffn_out.weight", lambda weight: weight[:, 3:5].fill_(0.0)[0].copy_(CANCELLING))
    bad = spoiled(bad, "classifier.weight", lambda weight: weight.mul_(1e4))
    # Every text with either label, so that half of the rows are surely wrong and have a gradient.
    both = few.subset([*range(len(few)), *range(len(few))])
    both = replace(both, labels=torch.tensor([0] * len(few) + [1] * len(few)))
    with pytest.raises(CacheError, match="not finite in layer 1; check these rows and the checkpoint"):
        captured_of(bad, both)


def test_a_sum_that_leaves_the_range_of_float32_is_refused_naming_where(base: BaseModel, few: LabelledSet) -> None:
    # A neuron that nobody reads: its mask gradients are zero, but its square is too large.
    bad = spoiled(replace(base, activation="relu"), "layers.1.ffn_in.bias", lambda bias: bias[3].fill_(2.0**80))
    bad = spoiled(bad, "layers.1.ffn_out.weight", lambda weight: weight[:, 3].fill_(0.0))
    with pytest.raises(CacheError, match=r"sum up to at layers\.1 ffn is not finite; check the checkpoint"):
        captured_of(bad, few)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (torch.empty(0), "9 rows have 0 labels; give every row one"),
        (
            torch.tensor([0, 1, 0, 2, 1, 0, 1, 0, 1]),
            r"row {3}, .*has no label of this model \(2, not 0 to 1\); label it",
        ),
        (torch.tensor([-100, 1, 0, 1, 1, 0, 1, 0, 1]), r"row {0}, .*has no label of this model \(-100, not 0 to 1\)"),
    ],
)
def test_rows_without_a_label_of_the_model_are_refused_by_name(
    base: BaseModel, few: LabelledSet, labels: Tensor, words: str
) -> None:
    with pytest.raises(DataError, match=words.format(*few.numbers)):
        captured_of(base, replace(few, labels=labels))


def test_a_pass_that_would_not_fit_is_refused_before_it_begins(
    base: BaseModel, few: LabelledSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = [len(sequence.ids) for sequence in few.sequences]
    needed = capture_bytes(base.shape, lengths, BATCH_ROWS)
    monkeypatch.setattr(memory, "available_bytes", lambda: needed)
    captured_of(base, few)
    monkeypatch.setattr(memory, "available_bytes", lambda: needed - 1)
    monkeypatch.setattr(module, "build_slim", None)  # nothing is begun
    with pytest.raises(HostMemoryError, match=f"the calibration pass needs about {needed} bytes .* {max(lengths)} tok"):
        captured_of(base, few)


def test_sensitivity_is_the_mean_squared_gradient_at_a_sublayers_output(base: BaseModel, few: LabelledSet) -> None:
    model = dense_model(base).requires_grad_(True)
    outputs: dict[tuple[int, Site], Tensor] = {}

    def keep(layer: int, site: Site, values_RW: Tensor, sequence_R: Tensor) -> Tensor:
        if site in (Site.ATTENTION_SUM, Site.FFN_SUM):
            values_RW.retain_grad()
            outputs[layer, site] = values_RW
        return values_RW

    logits = model(PackedBatch.from_sequences(few.sequences), keep)
    torch.nn.functional.cross_entropy(logits, few.labels, reduction="sum").backward()
    captured = captured_of(base, few)
    for (layer, site), values_RW in outputs.items():
        gate = Site.ATTENTION if site is Site.ATTENTION_SUM else Site.FFN
        gradient_RD = values_RW.grad
        assert gradient_RD is not None
        assert captured.tokens[layer] == gradient_RD.shape[0]
        total = captured.output_gradient_squares[layer, gate]
        torch.testing.assert_close(total, gradient_RD.double().square().sum(), rtol=1e-4, atol=1e-12)
