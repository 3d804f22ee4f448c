"""Load a BERT classifier from a Hugging Face directory. The only file that knows that library's attribute names.

Everything after this file speaks of slots: ``query``, ``key``, ``value``, ``attention_output``,
``attention_norm``, ``ffn_in``, ``ffn_out``, ``ffn_norm``.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoConfig, PretrainedConfig

from pruning.cost import Shape
from pruning.errors import ModelError
from pruning.files import digest_of

LAYER_SLOTS = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "ffn_in": "intermediate.dense",
    "ffn_out": "output.dense",
    "ffn_norm": "output.LayerNorm",
}
MODEL_SLOTS = {
    "embeddings.word.weight": "bert.embeddings.word_embeddings.weight",
    "embeddings.position.weight": "bert.embeddings.position_embeddings.weight",
    "embeddings.token_type.weight": "bert.embeddings.token_type_embeddings.weight",
    "embeddings.norm.weight": "bert.embeddings.LayerNorm.weight",
    "embeddings.norm.bias": "bert.embeddings.LayerNorm.bias",
    "pooler.weight": "bert.pooler.dense.weight",
    "pooler.bias": "bert.pooler.dense.bias",
    "classifier.weight": "classifier.weight",
    "classifier.bias": "classifier.bias",
}
PRUNABLE_SLOTS = ("query", "key", "value", "attention_output", "ffn_in", "ffn_out")
"""Linear layers of an encoder layer whose weights may go."""

ACTIVATIONS = ("gelu", "gelu_new", "relu")
SIZES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
    "type_vocab_size",
)
"""Settings that must be whole numbers of at least 1."""
SERVED: dict[str, tuple[object, ...]] = {
    "position_embedding_type": (None, "absolute"),
    "problem_type": (None, "single_label_classification"),
    "is_decoder": (None, False),
    "add_cross_attention": (None, False),
}
"""Settings that would change the answers, and the values under which ours are those of the checkpoint."""
BUFFERS = ("bert.embeddings.position_ids", "bert.embeddings.token_type_ids")
"""What older checkpoints store beside weights: constants."""


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A dense classifier on the CPU in float32, by slot names, with what identifies it."""

    name: str
    path: Path
    shape: Shape
    activation: str
    norm_eps: float
    labels: tuple[str, ...]
    """Label of each logit."""
    tensors: dict[str, Tensor]
    weights_digest: str
    """Digest of every tensor's name, shape and bytes as stored."""
    tokenizer_digest: str

    @property
    def digest(self) -> str:
        """Identify weights, architecture, labels and tokenizer together."""
        # The shape too: the weights do not say how many heads share them.
        architecture = [asdict(self.shape), self.activation, self.norm_eps]
        return digest_of([self.weights_digest, self.tokenizer_digest, architecture, self.labels])

    @property
    def max_length(self) -> int:
        """Longest sequence, in tokens, special ones included."""
        return self.shape.positions

    def prunable_weights(self) -> dict[str, Tensor]:
        """Return the Linear weights of all encoder layers by slot name, layer by layer."""
        return {
            f"layers.{layer}.{slot}.weight": self.tensors[f"layers.{layer}.{slot}.weight"]
            for layer in range(self.shape.num_layers)
            for slot in PRUNABLE_SLOTS
        }


def load_base_model(path: Path) -> BaseModel:
    """Return the classifier stored in a model directory (``config.json``, ``*.safetensors``, ``tokenizer.json``).

    Raises:
        ModelError: not a directory, not a BERT classifier that picks one label, no safetensors weights, or tensors
            that do not fit.
    """
    if not path.is_dir():
        raise ModelError(f"no model directory at {path}; give a local Hugging Face directory with config.json")
    config = _read_config(path)
    stored, weights_digest = _read_tensors(path, _weight_files(path))
    shape = _shape(config)
    tensors = _by_slot(stored, shape, path)
    labels = tuple(str(config.id2label[index]) for index in range(shape.labels))
    return BaseModel(
        name=path.name,
        path=path,
        shape=shape,
        activation=config.hidden_act,
        norm_eps=config.layer_norm_eps,
        labels=labels,
        tensors=tensors,
        weights_digest=weights_digest,
        tokenizer_digest=hashlib.sha256(_tokenizer_file(path).read_bytes()).hexdigest(),
    )


def _read_config(path: Path) -> PretrainedConfig:
    file = path / "config.json"
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        kind = values.get("model_type")
    except FileNotFoundError:
        raise ModelError(
            f"{path} has no config.json; it is not a Hugging Face model directory: give one made by save_pretrained"
        ) from None
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise ModelError(f"{file} is not a JSON object: {error}; fetch or save the model again") from None
    if kind != "bert":
        raise ModelError(f"{path} holds a {kind!r} model; this version serves BERT ('model_type': 'bert')")
    _check_settings(file, values)
    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True)
    except Exception as error:  # the library's checks raise what they like
        raise ModelError(f"{file} cannot be used: {error}; correct that setting, or fetch the model again") from error
    if config.hidden_act not in ACTIVATIONS:
        raise ModelError(
            f"{path} uses the activation {config.hidden_act!r}; known: {', '.join(ACTIVATIONS)}; give a model with one"
        )
    if sorted(config.id2label) != list(range(len(config.id2label))):
        raise ModelError(
            f"{path}: id2label must number the labels 0 to n-1; got {sorted(config.id2label)}; number them so"
        )
    if len(config.id2label) < 2:
        raise ModelError(f"{path} has {len(config.id2label)} label; this version serves classifiers of two and more")
    if config.hidden_size % config.num_attention_heads:
        raise ModelError(
            f"{path}: a hidden size of {config.hidden_size} cannot be shared by {config.num_attention_heads} heads; "
            "set num_attention_heads to the number that the checkpoint was trained with"
        )
    return config


def _check_settings(file: Path, values: dict[str, Any]) -> None:
    """Refuse sizes that are none, and models that compute something else than our forward pass."""
    for name in SIZES:
        size = values.get(name, 1)  # what is not there has the library's usual value
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ModelError(
                f"{file}: {name} must be a whole number of at least 1; got {size!r}; "
                "set it to what the checkpoint was trained with"
            )
    for name, served in SERVED.items():
        value = values.get(name)
        if value not in served:
            raise ModelError(
                f"{file}: {name} is {value!r}, which this version does not compute; "
                f"give a model with {served[-1]!r} (a BERT encoder that picks one of its labels)"
            )


def _weight_files(path: Path) -> list[Path]:
    files = sorted(path.glob("*.safetensors"))
    if files:
        return files
    pickled = sorted(file.name for file in path.glob("*.bin"))
    if pickled:
        raise ModelError(
            f"{path} has only pickled weights ({', '.join(pickled)}), which can run code when opened; "
            "save the model again with save_pretrained(..., safe_serialization=True)"
        )
    raise ModelError(f"{path} has no weights: no *.safetensors file; save the model there with save_pretrained")


def _tokenizer_file(path: Path) -> Path:
    file = path / "tokenizer.json"
    if not file.is_file():
        raise ModelError(f"{path} has no tokenizer.json; save its fast tokenizer there with save_pretrained")
    return file


def _read_tensors(path: Path, files: list[Path]) -> tuple[dict[str, Tensor], str]:
    tensors: dict[str, Tensor] = {}
    digest = hashlib.sha256()
    for file in files:
        try:
            with safe_open(file, framework="pt") as stored:
                for name in sorted(stored.keys()):
                    tensor = stored.get_tensor(name)
                    digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
                    digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
                    tensors[name] = tensor.float()
        except SafetensorError as error:
            raise ModelError(f"{file} is not a readable safetensors file: {error}; fetch or save it again") from None
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ModelError(f"{path}: tensor {name} has values that are not finite; give an earlier checkpoint")
    return tensors, digest.hexdigest()


def _shape(config: PretrainedConfig) -> Shape:
    values: dict[str, Any] = config.to_dict()
    return Shape(
        hidden=values["hidden_size"],
        num_layers=values["num_hidden_layers"],
        num_heads=values["num_attention_heads"],
        head_dim=values["hidden_size"] // values["num_attention_heads"],
        ffn=values["intermediate_size"],
        vocabulary=values["vocab_size"],
        positions=values["max_position_embeddings"],
        token_types=values["type_vocab_size"],
        labels=len(config.id2label),
    )


def _by_slot(stored: dict[str, Tensor], shape: Shape, path: Path) -> dict[str, Tensor]:
    """Return the tensors under slot names, every shape checked against the config."""
    if "classifier.weight" not in stored:
        raise ModelError(f"{path} has no classification head ('classifier.weight'); fine-tune it on a task first")
    D, F = shape.hidden, shape.ffn
    sizes: dict[str, tuple[int, ...]] = {
        "embeddings.word.weight": (shape.vocabulary, D),
        "embeddings.position.weight": (shape.positions, D),
        "embeddings.token_type.weight": (shape.token_types, D),
        "embeddings.norm.weight": (D,),
        "embeddings.norm.bias": (D,),
        "pooler.weight": (D, D),
        "pooler.bias": (D,),
        "classifier.weight": (shape.labels, D),
        "classifier.bias": (shape.labels,),
    }
    sources = dict(MODEL_SLOTS)
    outputs = dict.fromkeys(LAYER_SLOTS, D) | {"ffn_in": F}
    inputs = dict.fromkeys(LAYER_SLOTS, D) | {"ffn_out": F}
    for layer in range(shape.num_layers):
        for slot, attribute in LAYER_SLOTS.items():
            name, source = f"layers.{layer}.{slot}", f"bert.encoder.layer.{layer}.{attribute}"
            sources[f"{name}.weight"], sources[f"{name}.bias"] = f"{source}.weight", f"{source}.bias"
            is_norm = slot.endswith("_norm")
            sizes[f"{name}.weight"] = (D,) if is_norm else (outputs[slot], inputs[slot])
            sizes[f"{name}.bias"] = (outputs[slot],)
    missing = sorted(source for source in sources.values() if source not in stored)
    if missing:
        raise ModelError(
            f"{path} lacks {len(missing)} tensors of a BERT classifier, the first is {missing[0]}; fetch or save the "
            f"model again, or correct num_hidden_layers ({shape.num_layers}) in its config.json"
        )
    surplus = sorted(name for name in stored if name.startswith("bert.") and name not in {*sources.values(), *BUFFERS})
    if surplus:
        raise ModelError(
            f"{path} has {len(surplus)} tensors that its config.json does not speak of, the first is {surplus[0]}; "
            f"set num_hidden_layers ({shape.num_layers}) to what the checkpoint was trained with, or save it again"
        )
    tensors = {name: stored[source] for name, source in sources.items()}
    for name, tensor in tensors.items():
        if tuple(tensor.shape) != sizes[name]:
            raise ModelError(
                f"{path}: {sources[name]} has shape {tuple(tensor.shape)}, config.json says {sizes[name]}; "
                "use the config.json that was saved with these weights"
            )
    return tensors
