import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pruning.architectures import ARCHITECTURES
from pruning.cost import HeadDims
from pruning.encoder import BaseModel, load_base_model
from pruning.heads import Head
from pruning.slim.convert import build_slim, slim_layers
from pruning.slim.graphs import SMALLEST, STEPS_FROM, TOKENS_PER_LONG, GraphedBert, graph_shapes, graph_sizes, inputs_of
from pruning.slim.linear import rounded_rows
from pruning.tokenization import Encoded
from tests.pruning.parts import dense_model, logits_of, mask_of, sequences_of, with_units
from tests.pruning.zoo import write_model


@given(max_tokens=st.integers(1, 100_000))
def test_sizes_rise_to_the_budget_and_waste_little(max_tokens: int) -> None:
    sizes = graph_sizes(max_tokens)
    assert sizes[0] == SMALLEST and sizes[-1] >= max_tokens
    for smaller, larger in itertools.pairwise(sizes):
        assert smaller < larger
        assert larger <= (2 if smaller < STEPS_FROM else 1.25) * smaller
    assert all(rounded_rows(size) == size for size in sizes)


@given(max_tokens=st.integers(1, 20_000), max_length=st.integers(1, 600), data=st.data())
def test_every_text_alone_and_every_full_batch_of_usual_texts_has_a_graph(
    max_tokens: int, max_length: int, data: st.DataObject
) -> None:
    shapes = graph_shapes(max_tokens, max_length)
    length = data.draw(st.integers(1, max_length))
    count = max(1, max_tokens // max(length, TOKENS_PER_LONG))
    holding = [shape for shape in shapes if length * count <= shape[0] and count <= shape[1] and length <= shape[2]]
    assert holding or length * count > max_tokens


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6), more=st.integers(0, 20), rows=st.integers(6, 9))
def test_inputs_hold_the_sequences_end_to_end_and_nothing_after_them(lengths: list[int], more: int, rows: int) -> None:
    sequences = sequences_of(lengths, vocabulary=30, pairs=True)
    used = sum(lengths)
    tokens = used + more
    inputs = inputs_of(sequences, tokens, rows).tolist()
    ids, kinds, positions = (inputs[part * tokens : (part + 1) * tokens] for part in range(3))
    offsets = inputs[3 * tokens :]
    assert ids[:used] == [token for sequence in sequences for token in sequence.ids]
    assert kinds[:used] == [kind for sequence in sequences for kind in sequence.type_ids]
    assert positions[:used] == [position for length in lengths for position in range(length)]
    assert not any(ids[used:] + kinds[used:] + positions[used:])
    assert len(offsets) == rows + 1
    assert offsets[: len(lengths) + 1] == [sum(lengths[:count]) for count in range(len(lengths) + 1)]
    assert set(offsets[len(lengths) :]) == {used}


@pytest.mark.parametrize(("tokens", "rows"), [(7, 2), (8, 1)])
def test_sequences_that_do_not_fit_are_refused(tokens: int, rows: int) -> None:
    with pytest.raises(ValueError, match=f"2 sequences of 8 tokens do not fit {rows} of {tokens}"):
        inputs_of([Encoded([1] * 4, [0] * 4)] * 2, tokens, rows)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("lengths", [[1], [48], [3, 48, 17, 17, 1], [3] * 100, [48] * 12])
def test_a_replay_answers_as_the_model_does_on_the_cpu(base: BaseModel, lengths: list[int]) -> None:
    sequences = sequences_of(lengths, vocabulary=base.shape.vocabulary, pairs=True)
    graphed = GraphedBert.capture(dense_model(base).to("cuda"), max_tokens=512, max_length=base.max_length)
    for _ in range(2):  # a second replay meets what the first left behind
        torch.testing.assert_close(graphed(sequences), logits_of(dense_model(base), sequences), atol=1e-3, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dims", [HeadDims(8, 8), HeadDims(2, 6), HeadDims(6, 2)])
def test_layers_without_heads_or_neurons_or_with_narrow_heads_are_captured_too(base: BaseModel, dims: HeadDims) -> None:
    mask = with_units(mask_of(base.shape, [[], [1, 2]], [range(9), []]), base.shape, [dims, dims])
    layers = slim_layers(base, mask)
    sequences = sequences_of([5, 48, 2], vocabulary=base.shape.vocabulary)
    graphed = GraphedBert.capture(build_slim(base, layers).to("cuda"), max_tokens=64, max_length=base.max_length)
    expected = logits_of(build_slim(base, layers), sequences)
    torch.testing.assert_close(graphed(sequences), expected, atol=1e-3, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("kind", "head"), list(itertools.product(ARCHITECTURES, Head)))
def test_every_architecture_and_head_is_replayed(tmp_path: Path, kind: str, head: Head) -> None:
    model = load_base_model(write_model(tmp_path, kind, head))
    sequences = sequences_of([5, 48, 2], vocabulary=model.shape.vocabulary)
    graphed = GraphedBert.capture(dense_model(model).to("cuda"), max_tokens=64, max_length=model.max_length)
    torch.testing.assert_close(graphed(sequences), logits_of(dense_model(model), sequences), atol=1e-3, rtol=0)
