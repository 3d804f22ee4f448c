"""Every architecture, with every head, computes what the library computes, whole and cut."""

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from pruning.architectures import ARCHITECTURES
from pruning.cost import HeadDims, structured_cost
from pruning.encoder import BaseModel, load_base_model
from pruning.errors import ModelError
from pruning.heads import Head
from pruning.slim.convert import build_slim, slim_layers
from pruning.tokenization import Text, TextTokenizer
from tests.pruning.parts import dense_model, logits_of, mask_of, sequences_of, with_units
from tests.pruning.zoo import LABELS, library_model, library_outputs, write_model

LENGTHS = (7, 3, 20, 20, 1, 48)
KINDS_AND_HEADS = list(product(ARCHITECTURES, Head))
Load = Callable[[str, Head], BaseModel]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """Models by architecture and head, each written and loaded once."""
    made: dict[tuple[str, Head], BaseModel] = {}

    def load(kind: str, head: Head) -> BaseModel:
        if (kind, head) not in made:
            made[kind, head] = load_base_model(write_model(tmp_path_factory.mktemp(kind), kind, head))
        return made[kind, head]

    return load


@pytest.mark.parametrize(("kind", "head"), KINDS_AND_HEADS)
def test_the_dense_model_answers_as_the_library_does(loaded: Load, kind: str, head: Head) -> None:
    base = loaded(kind, head)
    sequences = sequences_of(LENGTHS, vocabulary=base.shape.vocabulary, pairs=base.shape.token_types > 1)
    ours, theirs = logits_of(dense_model(base), sequences), library_outputs(base, sequences)
    assert theirs.std() > 1e-2  # else anything near it would do
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("kind", "head"), KINDS_AND_HEADS)
def test_a_cut_model_answers_as_the_library_does_with_the_structures_masked(
    loaded: Load, kind: str, head: Head
) -> None:
    base = loaded(kind, head)
    mask = mask_of(base.shape, [[1, 3], [0]], [range(0, 64, 2), range(16)])
    sequences = sequences_of(LENGTHS, vocabulary=base.shape.vocabulary)
    ours, dense = logits_of(build_slim(base, slim_layers(base, mask)), sequences), library_outputs(base, sequences)
    assert (ours - dense).abs().max() > 1e-3
    torch.testing.assert_close(ours, library_outputs(base, sequences, mask), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("kind", "head"), KINDS_AND_HEADS)
def test_heads_that_lost_dimensions_answer_as_the_library_does_with_those_masked(
    loaded: Load, kind: str, head: Head
) -> None:
    base = loaded(kind, head)
    heads_and_neurons = mask_of(base.shape, [[1, 3], [0, 1, 2]], [range(64), range(16)])
    mask = with_units(heads_and_neurons, base.shape, [HeadDims(3, 6), HeadDims(8, 1)])
    sequences = sequences_of(LENGTHS, vocabulary=base.shape.vocabulary)
    ours = logits_of(build_slim(base, slim_layers(base, mask)), sequences)
    whole = library_outputs(base, sequences, heads_and_neurons)
    assert (ours - whole).abs().max() > 1e-3
    torch.testing.assert_close(ours, library_outputs(base, sequences, mask), atol=1e-4, rtol=0)


@pytest.mark.parametrize("head", [Head.TAGS, Head.SPAN])
def test_a_layer_of_nothing_still_passes_every_token_on(loaded: Load, head: Head) -> None:
    base = loaded("bert", head)
    mask = mask_of(base.shape, [[0, 1], []], [range(64), []])
    sequences = sequences_of(LENGTHS, vocabulary=base.shape.vocabulary)
    ours = logits_of(build_slim(base, slim_layers(base, mask)), sequences)
    torch.testing.assert_close(ours, library_outputs(base, sequences, mask), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("kind", "head"), KINDS_AND_HEADS)
def test_what_is_loaded_is_what_the_library_has(loaded: Load, kind: str, head: Head) -> None:
    base, shape = loaded(kind, head), loaded(kind, head).shape
    held = sum(tensor.numel() for tensor in base.tensors.values())
    theirs = sum(parameter.numel() for parameter in library_model(base).parameters())
    before_the_first = 2 * 32 if ARCHITECTURES[kind].positions_follow_padding else 0
    assert held == theirs - before_the_first
    cost = structured_cost(shape, [shape.num_heads] * shape.num_layers, [shape.ffn] * shape.num_layers)
    assert cost.parameters == held
    assert base.labels == LABELS[head]
    assert (shape.head, shape.positions, base.max_length) == (head, 48, 48)


def test_a_token_head_needs_every_token_of_the_last_layer(loaded: Load) -> None:
    pooled, token = (loaded("bert", head).shape for head in (Head.LABEL, Head.TAGS))
    heads, neurons = [4, 4], [64, 64]
    assert structured_cost(token, heads, neurons).macs > structured_cost(pooled, heads, neurons).macs
    one = structured_cost(token, heads, neurons, length=1).macs
    assert one == structured_cost(pooled, heads, neurons, length=1).macs


def test_embeddings_as_wide_as_the_layers_are_not_projected(tmp_path: Path) -> None:
    base = load_base_model(write_model(tmp_path, "electra", embedding_size=32))
    assert base.shape.embedding is None
    sequences = sequences_of(LENGTHS, vocabulary=base.shape.vocabulary, pairs=True)
    theirs = library_outputs(base, sequences)
    torch.testing.assert_close(logits_of(dense_model(base), sequences), theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("padding", [0, 1, 3])
def test_positions_are_counted_from_the_padding_token(tmp_path: Path, padding: int) -> None:
    base = load_base_model(write_model(tmp_path, "roberta", pad_token_id=padding, max_position_embeddings=50))
    assert base.max_length == 50 - padding - 1
    sequences = sequences_of((9, base.max_length), vocabulary=base.shape.vocabulary)
    theirs = library_outputs(base, sequences)
    torch.testing.assert_close(logits_of(dense_model(base), sequences), theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["roberta", "distilbert"])
def test_token_types_that_an_architecture_does_not_have_change_nothing(loaded: Load, kind: str) -> None:
    base = loaded(kind, Head.LABEL)
    singles, pairs = (sequences_of([12], vocabulary=base.shape.vocabulary, pairs=pairs) for pairs in (False, True))
    model = dense_model(base)
    torch.testing.assert_close(logits_of(model, pairs), logits_of(model, singles), atol=1e-6, rtol=0)


TEXTS: list[Text] = ["the film was good", "Very GOOD, not cold! é", "food " * 60, ("we liked it", "cold " * 60)]


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_tokens_are_those_of_the_library_for_every_kind_of_tokenizer(loaded: Load, kind: str) -> None:
    base = loaded(kind, Head.LABEL)
    tokenizer = TextTokenizer.load(base.path)
    reference = PreTrainedTokenizerFast(tokenizer_file=str(base.path / "tokenizer.json"))
    for text, ours in zip(TEXTS, tokenizer.encode(TEXTS, max_length=base.max_length), strict=True):
        pair = (text,) if isinstance(text, str) else text
        theirs = reference(*pair, truncation=True, max_length=base.max_length, return_token_type_ids=True)
        assert (ours.ids, ours.type_ids) == (theirs["input_ids"], theirs["token_type_ids"])
    assert tokenizer.largest_id() < base.shape.vocabulary


def drop_the_class(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["architectures"]
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(("kind", "head"), KINDS_AND_HEADS)
def test_where_the_config_names_no_class_the_tensors_say_which_head_it_is(
    tmp_path: Path, kind: str, head: Head
) -> None:
    folder = write_model(tmp_path, kind, head)
    drop_the_class(folder)
    assert load_base_model(folder).shape.head is head


def test_the_pooler_that_older_checkpoints_keep_below_a_token_head_is_left_out(tmp_path: Path) -> None:
    folder = write_model(tmp_path, "bert", Head.TAGS)
    before = load_base_model(folder).tensors.keys()
    tensors = load_file(folder / "model.safetensors")
    surplus = {"bert.pooler.dense.weight": torch.ones(32, 32), "bert.pooler.dense.bias": torch.ones(32)}
    save_file(tensors | surplus, folder / "model.safetensors", {"format": "pt"})
    assert load_base_model(folder).tensors.keys() == before


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_an_encoder_of_any_architecture_without_a_head_is_refused(tmp_path: Path, kind: str) -> None:
    folder = write_model(tmp_path, kind)
    config = json.loads((folder / "config.json").read_text()) | {"architectures": ["SomeModelForMaskedLM"]}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"is a SomeModelForMaskedLM, which has no classification head .*fine-tune"):
        load_base_model(folder)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_missing_tensor_is_refused_naming_architecture_and_head(tmp_path: Path, kind: str) -> None:
    folder = write_model(tmp_path, kind, Head.TAGS)
    tensors = load_file(folder / "model.safetensors")
    del tensors["classifier.bias"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    name = ARCHITECTURES[kind].name
    with pytest.raises(ModelError, match=f"lacks 1 tensors of a {name} model for token-classification.*classifier"):
        load_base_model(folder)


def test_the_padding_token_that_positions_need_is_asked_for(tmp_path: Path) -> None:
    folder = write_model(tmp_path, "roberta")
    config = json.loads((folder / "config.json").read_text()) | {"pad_token_id": None}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"pad_token_id must be a whole number from 0 .*got None; set it"):
        load_base_model(folder)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_regression_that_claims_to_pick_a_label_is_refused(tmp_path: Path, kind: str) -> None:
    folder = write_model(tmp_path, kind, Head.SCORE)
    config = json.loads((folder / "config.json").read_text()) | {"problem_type": "single_label_classification"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"problem_type"):
        load_base_model(folder)
