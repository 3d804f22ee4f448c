"""What the pass for units inside heads leaves behind, against plain autograd and against the model itself."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pruning import memory
from pruning.data import LabelledSet
from pruning.encoder import BaseModel
from pruning.errors import CacheError, HostMemoryError
from pruning.heads import Head
from pruning.slim.convert import build_slim, dense_mask, slim_layers
from pruning.slim.packed import PackedBatch
from pruning.unit_pass import EFFECT_ROWS, unit_pass
from pruning.workbench import Workbench
from tests.pruning.parts import readings_of
from tests.pruning.zoo import write_model, write_task_rows


def test_mask_gradients_are_the_summed_products_of_a_units_weights_and_their_gradients(
    base: BaseModel, train: LabelledSet
) -> None:
    statistics = unit_pass(base, train, micro_batch=4)
    shape = base.shape
    assert statistics.qk_gradients_MLNH.shape == (-(-len(train) // 4), 2, shape.num_heads, shape.head_dim)
    for layer in range(shape.num_layers):
        qk_W, vo_W = torch.zeros(2, shape.hidden)
        for reading in readings_of(base, train):
            products = {name: base.tensors[name] * gradient for name, gradient in reading.gradients.items()}
            query = f"layers.{layer}.query"
            qk_W += products[f"{query}.weight"].sum(1) + products[f"{query}.bias"]
            vo_W += products[f"layers.{layer}.attention_output.weight"].sum(0)
        for found, expected in ((statistics.qk_gradients_MLNH, qk_W), (statistics.vo_gradients_MLNH, vo_W)):
            torch.testing.assert_close(found.sum(0)[layer].flatten(), expected, atol=1e-5, rtol=1e-3)


def test_micro_batches_are_neighbouring_rows(base: BaseModel, train: LabelledSet) -> None:
    four, alone = (unit_pass(base, train.subset(range(4)), micro_batch=size) for size in (4, 1))
    torch.testing.assert_close(four.vo_gradients_MLNH[0], alone.vo_gradients_MLNH.sum(0))
    torch.testing.assert_close(four.qk_gradients_MLNH[0], alone.qk_gradients_MLNH.sum(0))


def test_who_shares_a_batch_changes_nothing(base: BaseModel, train: LabelledSet) -> None:
    rows = train.subset([0, len(train) - 1])
    together = unit_pass(base, rows, micro_batch=1)
    alone = [unit_pass(base, rows.subset([index]), micro_batch=1) for index in range(2)]
    torch.testing.assert_close(
        together.qk_gradients_MLNH, torch.cat([one.qk_gradients_MLNH for one in alone]), atol=1e-5, rtol=1e-4
    )


def test_a_gradient_that_is_not_finite_is_refused_naming_row_and_layer(base: BaseModel, train: LabelledSet) -> None:
    # A token that stands in the last row alone, so that only the second batch is spoiled.
    odd = replace(train.sequences[-1], ids=[1, *train.sequences[-1].ids[1:]])
    rows = replace(train, sequences=(*train.sequences[:-1], odd))
    words = base.tensors["embeddings.word.weight"].clone()
    words[1] = float("nan")
    bad = replace(base, tensors=base.tensors | {"embeddings.word.weight": words})
    with pytest.raises(CacheError, match=rf"training row {rows.numbers[-1]}, counted from 1, is not finite in layer 0"):
        unit_pass(bad, rows, micro_batch=4)


@pytest.mark.parametrize("head", range(4))
@pytest.mark.parametrize("units", [[0], [1, 2, 7]])
def test_an_effect_is_what_the_output_changes_by_as_units_begin_to_go(
    base: BaseModel, train: LabelledSet, head: int, units: list[int]
) -> None:
    row = train.subset([len(train) - 1])
    statistics = unit_pass(base, row, micro_batch=1)
    last, step = base.shape.num_layers - 1, 1e-3  # there a row has one query: the mean is of one
    query_HH = statistics.query_grams_LNHH[last, head][units][:, units].double()
    predicted = (query_HH * statistics.effects_LNHH[last, head][units][:, units]).sum()

    name = f"layers.{last}.query"
    fewer = torch.ones(base.shape.hidden, dtype=torch.float64)
    fewer[[head * base.shape.head_dim + unit for unit in units]] = 1.0 - step
    changes = {
        f"{name}.weight": base.tensors[f"{name}.weight"] * fewer[:, None],
        f"{name}.bias": base.tensors[f"{name}.bias"] * fewer,
    }
    changed = ((attention_output(base, row, changes) - attention_output(base, row, {})) / step).square().sum()
    assert float(changed) == pytest.approx(float(predicted), rel=1e-2)


def attention_output(base: BaseModel, row: LabelledSet, changes: dict[str, Tensor]) -> Tensor:
    """Return what the last attention sublayer adds to the first token, in double precision."""
    tensors = {name: tensor.double() for name, tensor in base.tensors.items()} | changes
    base = replace(base, tensors=tensors)
    # Weights that train go through the plain kernels, which know double precision.
    model = build_slim(base, slim_layers(base, dense_mask(base.shape))).requires_grad_(True)
    seen: list[Tensor] = []
    model.layers[-1].attention_output.register_forward_hook(lambda _, __, output: seen.append(output.detach()))  # type: ignore[union-attr]
    model(PackedBatch.from_sequences(row.sequences), lambda layer, site, values, sequences: values)
    return seen[0]


def test_effects_come_from_rows_of_every_length(base: BaseModel, train: LabelledSet) -> None:
    many = train.subset([index % len(train) for index in range(EFFECT_ROWS + 1)])
    statistics = unit_pass(base, many.subset(range(0, len(many), 2)), micro_batch=4)
    torch.testing.assert_close(unit_pass(base, many, micro_batch=4).effects_LNHH, statistics.effects_LNHH)


@pytest.mark.parametrize("head", [Head.TAGS, Head.SPAN])
def test_heads_that_read_every_token_ask_from_every_token(tmp_path: Path, head: Head) -> None:
    rows = [write_task_rows(tmp_path / f"{seed}.jsonl", head, 8, seed=seed) for seed in (0, 1)]
    bench = Workbench.open(write_model(tmp_path / "model", "bert", head), *rows, tmp_path / "store")
    statistics = bench.unit_statistics()
    assert statistics.query_grams_LNHH.isfinite().all() and statistics.qk_gradients_MLNH[:, -1].any()
    assert torch.linalg.matrix_rank(statistics.query_grams_LNHH[-1, 0]) == bench.base.shape.head_dim


def test_the_pass_is_taken_once_and_kept(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not bench.has_unit_statistics
    first = bench.unit_statistics()
    assert bench.has_unit_statistics
    monkeypatch.setattr("pruning.workbench.unit_pass", lambda *_, **__: pytest.fail("taken again"))
    again = Workbench(bench.base, bench.train, bench.evaluation, bench.root).unit_statistics()
    assert all(torch.equal(again.as_tensors()[name], tensor) for name, tensor in first.as_tensors().items())


def test_a_pass_that_would_not_fit_is_refused(
    base: BaseModel, train: LabelledSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 1000)
    with pytest.raises(HostMemoryError, match="the pass for units inside heads needs about"):
        unit_pass(base, train, micro_batch=4)
