import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pruning.encoder import BaseModel, load_base_model
from pruning.slim.bert import Site
from pruning.slim.convert import build_slim, slim_layers
from pruning.slim.linear import rounded_rows
from pruning.slim.packed import PackedBatch
from pruning.tokenization import Encoded
from tests.pruning.parts import dense_model, logits_of, mask_of, reference_model, sequences_of

MIXED = (5, 48, 2, 17, 17, 1, 30, 5)


def library_logits(base: BaseModel, sequences: Sequence[Encoded]) -> Tensor:
    """Return the logits of transformers over one padded batch with its attention mask."""
    longest = max(len(sequence.ids) for sequence in sequences)

    def padded(rows: Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])

    with torch.inference_mode():
        return reference_model(base)(
            input_ids=padded([sequence.ids for sequence in sequences]),
            token_type_ids=padded([sequence.type_ids for sequence in sequences]),
            attention_mask=padded([[1] * len(sequence.ids) for sequence in sequences]),
        ).logits


@pytest.mark.parametrize("pairs", [False, True])
def test_packed_logits_are_those_of_transformers(base: BaseModel, pairs: bool) -> None:
    sequences = sequences_of(MIXED, vocabulary=base.shape.vocabulary, pairs=pairs)
    torch.testing.assert_close(
        logits_of(dense_model(base), sequences), library_logits(base, sequences), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("activation", ["gelu_new", "relu"])
def test_every_activation_is_that_of_transformers(base: BaseModel, tmp_path: Path, activation: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(base.path, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_act": activation}))
    other = load_base_model(folder)
    sequences = sequences_of(MIXED, vocabulary=base.shape.vocabulary)
    torch.testing.assert_close(
        logits_of(dense_model(other), sequences), library_logits(other, sequences), atol=1e-4, rtol=0
    )


def test_token_types_change_the_logits(base: BaseModel) -> None:
    singles = sequences_of([12], vocabulary=base.shape.vocabulary)
    pairs = sequences_of([12], vocabulary=base.shape.vocabulary, pairs=True)
    model = dense_model(base)
    assert (logits_of(model, singles) - logits_of(model, pairs)).abs().max() > 1e-3


@settings(max_examples=30)
@given(order=st.permutations(range(len(MIXED))))
def test_batch_order_in_is_batch_order_out(base: BaseModel, order: list[int]) -> None:
    sequences = sequences_of(MIXED, vocabulary=base.shape.vocabulary)
    model = dense_model(base)
    shuffled = logits_of(model, [sequences[index] for index in order])
    torch.testing.assert_close(shuffled, logits_of(model, sequences)[order], atol=1e-5, rtol=0)


@pytest.mark.parametrize("index", range(len(MIXED)))
def test_neighbours_do_not_change_a_sequences_logits(base: BaseModel, index: int) -> None:
    sequences = sequences_of(MIXED, vocabulary=base.shape.vocabulary)
    model = dense_model(base)
    together, alone = logits_of(model, sequences)[index], logits_of(model, [sequences[index]])[0]
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("count", [17, 35])
def test_rows_that_only_round_their_number_up_are_no_sequences(base: BaseModel, count: int) -> None:
    sequences = sequences_of([3] * count, vocabulary=base.shape.vocabulary)
    assert rounded_rows(count) > count
    logits = logits_of(dense_model(base), sequences)
    torch.testing.assert_close(logits, library_logits(base, sequences), atol=1e-4, rtol=0)


def test_a_tap_that_changes_nothing_changes_nothing(base: BaseModel) -> None:
    batch = PackedBatch.from_sequences(sequences_of(MIXED, vocabulary=base.shape.vocabulary))
    model = dense_model(base)
    with torch.inference_mode():
        tapped = model(batch, lambda layer, site, inputs_RW, sequence_R: inputs_RW)
        torch.testing.assert_close(tapped, model(batch), atol=1e-6, rtol=1e-6)


def test_a_tap_sees_every_token_except_in_the_last_layer_only_the_first(base: BaseModel) -> None:
    batch = PackedBatch.from_sequences(sequences_of([3, 5], vocabulary=base.shape.vocabulary))
    seen: list[tuple[int, Site, tuple[int, ...], list[int]]] = []

    def look(layer: int, site: Site, inputs_RW: Tensor, sequence_R: Tensor) -> Tensor:
        seen.append((layer, site, tuple(inputs_RW.shape), sequence_R.tolist()))
        return inputs_RW

    dense_model(base)(batch, look)
    assert seen == [
        (0, Site.ATTENTION, (8, 32), [0, 0, 0, 1, 1, 1, 1, 1]),
        (0, Site.ATTENTION_SUM, (8, 32), [0, 0, 0, 1, 1, 1, 1, 1]),
        (0, Site.FFN, (8, 64), [0, 0, 0, 1, 1, 1, 1, 1]),
        (0, Site.FFN_SUM, (8, 32), [0, 0, 0, 1, 1, 1, 1, 1]),
        (1, Site.ATTENTION, (2, 32), [0, 1]),
        (1, Site.ATTENTION_SUM, (2, 32), [0, 1]),
        (1, Site.FFN, (2, 64), [0, 1]),
        (1, Site.FFN_SUM, (2, 32), [0, 1]),
    ]


def test_a_sublayer_with_nothing_left_is_never_tapped(base: BaseModel) -> None:
    mask = mask_of(base.shape, [[], range(4)], [range(64), []])
    seen: list[tuple[int, Site]] = []

    def look(layer: int, site: Site, inputs_RW: Tensor, sequence_R: Tensor) -> Tensor:
        seen.append((layer, site))
        return inputs_RW

    build_slim(base, slim_layers(base, mask))(
        PackedBatch.from_sequences(sequences_of([3], vocabulary=base.shape.vocabulary)), look
    )
    assert seen == [
        (0, Site.FFN),
        (0, Site.FFN_SUM),
        (1, Site.ATTENTION),
        (1, Site.ATTENTION_SUM),
    ]


@pytest.mark.parametrize("slot", ["layers.0.attention_output", "layers.1.ffn_out"])
def test_the_output_bias_of_an_empty_sublayer_still_counts(base: BaseModel, slot: str) -> None:
    mask = mask_of(base.shape, [[], range(4)], [range(64), []])
    layers = slim_layers(base, mask)
    sequences = sequences_of([5, 9], vocabulary=base.shape.vocabulary)
    before = logits_of(build_slim(base, layers), sequences)
    # Not the same amount everywhere: the norm that follows would take a constant out again.
    shifted = layers | {f"{slot}.bias": layers[f"{slot}.bias"] + torch.linspace(-1, 1, base.shape.hidden)}
    after = logits_of(build_slim(base, shifted), sequences)
    assert (after - before).abs().min() > 1e-4
