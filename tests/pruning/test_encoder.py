import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BertForSequenceClassification, BertModel

from pruning.architectures import ARCHITECTURES
from pruning.encoder import BaseModel, load_base_model
from pruning.errors import ModelError


@pytest.fixture
def copy(tiny_model_dir: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may spoil."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_dir, folder)
    return folder


def change_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def change_tensors(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


def test_every_tensor_of_the_classifier_is_loaded_as_stored(base: BaseModel) -> None:
    theirs = BertForSequenceClassification.from_pretrained(base.path).state_dict()
    assert sum(tensor.numel() for tensor in base.tensors.values()) == sum(tensor.numel() for tensor in theirs.values())
    assert torch.equal(base.tensors["layers.1.ffn_out.weight"], theirs["bert.encoder.layer.1.output.dense.weight"])


def test_the_shape_is_that_of_the_config(base: BaseModel) -> None:
    shape = base.shape
    assert (shape.hidden, shape.num_layers, shape.num_heads, shape.head_dim, shape.ffn) == (32, 2, 4, 8, 64)
    assert (shape.positions, shape.token_types, shape.labels) == (48, 2, 2)
    assert base.max_length == 48


def test_labels_stand_in_logit_order(copy: Path) -> None:
    change_config(copy, id2label={"1": "yes", "0": "no"}, label2id={"yes": 1, "no": 0})
    assert load_base_model(copy).labels == ("no", "yes")


def test_the_prunable_weights_are_all_linear_weights_of_the_layers(base: BaseModel) -> None:
    weights = base.prunable_weights()
    assert sum(weight.numel() for weight in weights.values()) == base.shape.prunable_weights
    assert len(weights) == 6 * base.shape.num_layers


def test_a_model_stored_in_half_precision_is_held_in_float32(copy: Path) -> None:
    change_tensors(copy, lambda tensors: tensors.update({name: part.half() for name, part in tensors.items()}))
    assert {tensor.dtype for tensor in load_base_model(copy).tensors.values()} == {torch.float32}


def test_a_model_split_over_several_files_is_the_same_model(base: BaseModel, copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    names = sorted(tensors)
    save_file({name: tensors[name] for name in names[:9]}, copy / "model-00001-of-00002.safetensors")
    save_file({name: tensors[name] for name in names[9:]}, copy / "model-00002-of-00002.safetensors")
    assert load_base_model(copy).digest == base.digest


def test_the_same_files_elsewhere_have_the_same_digest(base: BaseModel, copy: Path) -> None:
    assert load_base_model(copy).digest == base.digest


def scale_one_weight(folder: Path) -> None:
    change_tensors(folder, lambda tensors: tensors["classifier.weight"][0, 0].mul_(1.001))


def rename_a_label(folder: Path) -> None:
    change_config(folder, id2label={"0": "bad", "1": "positive"}, label2id={"bad": 0, "positive": 1})


def touch_the_tokenizer(folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_text(path.read_text() + "\n")


def swap_the_activation(folder: Path) -> None:
    change_config(folder, hidden_act="relu")


def regroup_the_heads(folder: Path) -> None:
    change_config(folder, num_attention_heads=8)


@pytest.mark.parametrize(
    "change", [scale_one_weight, rename_a_label, touch_the_tokenizer, swap_the_activation, regroup_the_heads]
)
def test_whatever_changes_the_answers_changes_the_digest(
    base: BaseModel, copy: Path, change: Callable[[Path], None]
) -> None:
    change(copy)
    assert load_base_model(copy).digest != base.digest


def test_a_missing_directory_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model directory at .*absent"):
        load_base_model(tmp_path / "absent")


def test_a_directory_without_config_is_refused(copy: Path) -> None:
    (copy / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config\.json"):
        load_base_model(copy)


@pytest.mark.parametrize("content", ["", "{", "[1]", "\ufeff{}"])
def test_a_config_that_is_no_json_object_is_refused(copy: Path, content: str) -> None:
    (copy / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match=r"config\.json is not a JSON object"):
        load_base_model(copy)


@pytest.mark.parametrize("kind", ["gpt2", None, ["bert"]])
def test_an_unknown_architecture_is_refused_naming_what_it_is_and_the_known_ones(copy: Path, kind: Any) -> None:
    change_config(copy, model_type=kind)
    with pytest.raises(ModelError, match=re.escape(f"holds a {kind!r} model; this version knows bert, roberta")):
        load_base_model(copy)


def test_an_unknown_activation_is_refused_naming_the_known_ones(copy: Path) -> None:
    change_config(copy, hidden_act="silu")
    with pytest.raises(ModelError, match="'silu'; known: gelu"):
        load_base_model(copy)


def test_heads_that_do_not_divide_the_hidden_size_are_refused(copy: Path) -> None:
    change_config(copy, num_attention_heads=5)
    with pytest.raises(ModelError, match="5 heads"):
        load_base_model(copy)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("position_embedding_type", "relative_key"),
        ("position_embedding_type", "relative_key_query"),
        ("problem_type", "multi_label_classification"),
        ("problem_type", "regression"),
        ("is_decoder", True),
        ("add_cross_attention", True),
    ],
)
def test_a_model_that_computes_something_else_is_refused_naming_it(copy: Path, name: str, value: Any) -> None:
    change_config(copy, **{name: value})
    with pytest.raises(ModelError, match=f"{name} is {value!r}, which this version does not compute; give a model"):
        load_base_model(copy)


def test_the_usual_values_of_these_settings_are_served(base: BaseModel, copy: Path) -> None:
    usual = {"position_embedding_type": "absolute", "problem_type": "single_label_classification"}
    change_config(copy, **usual, is_decoder=False, add_cross_attention=False)
    assert load_base_model(copy).digest == base.digest


@pytest.mark.parametrize("name", ARCHITECTURES["bert"].sizes.values())
@pytest.mark.parametrize("value", [0, -2, "32", 1.5, True, None])
def test_a_size_that_is_none_is_refused_naming_it(copy: Path, name: str, value: Any) -> None:
    change_config(copy, **{name: value})
    with pytest.raises(ModelError, match=re.escape(f"{name} must be a whole number of at least 1; got {value!r}; set")):
        load_base_model(copy)


@pytest.mark.parametrize(
    "values", [{"layer_norm_eps": "small"}, {"id2label": ["no", "yes"]}, {"hidden_act": 3}, {"id2label": {"x": "no"}}]
)
def test_a_config_that_the_library_refuses_is_refused_by_name(copy: Path, values: dict[str, Any]) -> None:
    change_config(copy, **values)
    with pytest.raises(ModelError, match=r"config\.json cannot be used: (.|\n)*; correct that setting"):
        load_base_model(copy)


@pytest.mark.parametrize("kind", ["fewer layers", "relative positions", "cross attention"])
def test_weights_that_the_config_does_not_speak_of_are_refused_by_name(copy: Path, kind: str) -> None:
    surplus = {
        "relative positions": "bert.encoder.layer.0.attention.self.distance_embedding.weight",
        "cross attention": "bert.encoder.layer.0.crossattention.self.query.weight",
    }
    if kind == "fewer layers":
        change_config(copy, num_hidden_layers=1)
    else:
        change_tensors(copy, lambda tensors: tensors.update({surplus[kind]: torch.ones(1)}))
    first = surplus.get(kind, "bert.encoder.layer.1.attention.output.LayerNorm.bias")
    with pytest.raises(ModelError, match=rf"tensors that its config\.json .*{re.escape(first)}; set num_hidden_layers"):
        load_base_model(copy)


def test_what_older_checkpoints_store_beside_the_classifier_is_left_out(base: BaseModel, copy: Path) -> None:
    buffers = {"bert.embeddings.position_ids": torch.arange(48), "cls.predictions.bias": torch.ones(28)}
    change_tensors(copy, lambda tensors: tensors.update(buffers))
    assert load_base_model(copy).tensors.keys() == base.tensors.keys()


def test_labels_with_a_gap_in_their_numbers_are_refused(copy: Path) -> None:
    change_config(copy, id2label={"0": "no", "2": "yes"}, label2id={"no": 0, "yes": 2})
    with pytest.raises(ModelError, match=r"id2label must number the labels 0 to n-1; got \[0, 2\]"):
        load_base_model(copy)


def test_a_directory_without_weights_is_refused(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="has no weights"):
        load_base_model(copy)


def test_pickled_weights_are_never_opened(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"only pickled weights \(pytorch_model\.bin\).*safe_serialization"):
        load_base_model(copy)


def test_an_encoder_without_a_head_is_refused(copy: Path) -> None:
    BertModel.from_pretrained(copy).save_pretrained(copy)
    with pytest.raises(ModelError, match="no classification head"):
        load_base_model(copy)


def test_a_directory_without_a_tokenizer_is_refused(copy: Path) -> None:
    (copy / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        load_base_model(copy)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_weight_file_is_refused_by_name(copy: Path, share: float) -> None:
    path = copy / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelError, match=r"model\.safetensors is not a readable safetensors file"):
        load_base_model(copy)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_refused_by_name(copy: Path, value: float) -> None:
    change_tensors(copy, lambda tensors: tensors["bert.pooler.dense.bias"].view(-1)[3].fill_(value))
    with pytest.raises(ModelError, match=r"bert\.pooler\.dense\.bias has values that are not finite"):
        load_base_model(copy)


def test_a_missing_tensor_is_refused_by_name(copy: Path) -> None:
    change_tensors(copy, lambda tensors: tensors.pop("bert.encoder.layer.1.output.dense.bias"))
    with pytest.raises(ModelError, match=r"lacks 1 tensors.*bert\.encoder\.layer\.1\.output\.dense\.bias"):
        load_base_model(copy)


def test_a_tensor_that_does_not_fit_the_config_is_refused_by_name(copy: Path) -> None:
    change_config(copy, intermediate_size=60)
    with pytest.raises(ModelError, match=r"intermediate\.dense\.weight has shape \(64, 32\), config\.json says \(60"):
        load_base_model(copy)
