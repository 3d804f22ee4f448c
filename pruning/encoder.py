"""Load an encoder with its head from a Hugging Face directory. Everything after this file speaks of slots.

``pruning.architectures`` says what each architecture calls them; this is the only file that asks that library.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig

from pruning.architectures import ARCHITECTURES, Architecture
from pruning.checkpoint import CONFIG, read_settings, read_tensors, tokenizer_digest
from pruning.cost import Shape
from pruning.errors import ModelError
from pruning.files import digest_of
from pruning.heads import Head
from pruning.tensor_sizes import PRUNABLE_SLOTS, tensor_sizes

ACTIVATIONS = ("gelu", "gelu_new", "relu")
USUAL_NORM_EPS = 1e-12
"""Of architectures whose ``config.json`` does not say."""
SERVED: dict[str, tuple[object, ...]] = {
    "position_embedding_type": (None, "absolute"),
    "is_decoder": (None, False),
    "add_cross_attention": (None, False),
}
"""Settings that would change the answers, and the values under which ours are those of the checkpoint."""
PROBLEMS: dict[Head, tuple[object, ...]] = {
    Head.LABEL: (None, "single_label_classification"),
    Head.SCORE: (None, "regression"),
}
"""The same of ``problem_type``, which only these heads read."""
CLASSES = {
    "ForSequenceClassification": Head.LABEL,
    "ForTokenClassification": Head.TAGS,
    "ForQuestionAnswering": Head.SPAN,
}
"""How the library's name of a model with a head ends; one label makes a regression of the first."""
SPAN_LABELS = ("start", "end")


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A dense encoder with its head on the CPU in float32, by slot names, with what identifies it."""

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
    head_activation: str = "tanh"
    """Between ``pooler`` and ``classifier``; a head without a pooler has none."""

    @property
    def architecture_digest(self) -> str:
        """Identify all that is computed with the weights: they do not say, for one, how many heads share them."""
        return digest_of([asdict(self.shape), self.activation, self.norm_eps, self.head_activation])

    @property
    def digest(self) -> str:
        """Identify weights, architecture, labels and tokenizer together."""
        return digest_of([self.weights_digest, self.tokenizer_digest, self.architecture_digest, self.labels])

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
    """Return the model stored in a directory (``config.json``, ``*.safetensors``, ``tokenizer.json``).

    Raises:
        ModelError: not a directory, an architecture or a head that is not known, no safetensors weights, or tensors
            that do not fit.
    """
    read = _read(path)
    return _assembled(read, _head(read))


def load_encoder(path: Path) -> BaseModel:
    """Return the encoder stored in a directory, whatever head is on it, or none, under one that gives every token 0.

    Such a head has every layer computed for every token, the last one too.

    Raises:
        ModelError: as ``load_base_model``, but for the head.
    """
    read = _read(path)
    inner, stored = f"{read.architecture.prefix}.", read.stored
    if not any(name.startswith(inner) for name in stored):  # saved without a head
        stored = {inner + name: tensor for name, tensor in stored.items()}
    labels, hidden = len(read.settings["id2label"]), read.settings[read.architecture.sizes["hidden"]]
    (classifier,) = read.architecture.head_modules(Head.TAGS).values()
    zeros = {f"{classifier}.weight": torch.zeros(labels, hidden), f"{classifier}.bias": torch.zeros(labels)}
    return _assembled(replace(read, stored={**stored, **zeros}), Head.TAGS)


@dataclass(frozen=True, slots=True)
class _Read:
    """What a model directory holds."""

    path: Path
    given: dict[str, Any]
    """Settings of its file."""
    settings: dict[str, Any]
    """The same, completed."""
    architecture: Architecture
    stored: Mapping[str, Tensor]
    """Tensors by stored name."""
    weights_digest: str


def _read(path: Path) -> _Read:
    given = read_settings(path)
    kind = given.get("model_type")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        raise ModelError(f"{path} holds a {kind!r} model; this version knows {', '.join(ARCHITECTURES)}; give one")
    architecture = ARCHITECTURES[kind]
    _check_settings(path / CONFIG, given, architecture)
    return _Read(path, given, _completed(path, architecture), architecture, *read_tensors(path))


def _assembled(read: _Read, head: Head) -> BaseModel:
    path, settings, architecture = read.path, read.settings, read.architecture
    first_position = _first_position(path / CONFIG, settings) if architecture.positions_follow_padding else 0
    shape = _shape(settings, head, architecture, first_position)
    names = settings["id2label"]
    return BaseModel(
        name=path.name,
        path=path,
        shape=shape,
        activation=settings[architecture.activation],
        norm_eps=settings[architecture.norm_eps] if architecture.norm_eps else USUAL_NORM_EPS,
        labels=SPAN_LABELS if head is Head.SPAN else tuple(str(names[index]) for index in range(shape.labels)),
        tensors=_by_slot(read.stored, shape, architecture, first_position, path),
        weights_digest=read.weights_digest,
        tokenizer_digest=tokenizer_digest(path),
        head_activation=architecture.head_activation,
    )


def _check_settings(file: Path, given: Mapping[str, Any], architecture: Architecture) -> None:
    """Refuse sizes that are none, and models that compute something else than our forward pass."""
    for name in architecture.sizes.values():
        size = given.get(name, 1)  # what is not there has the library's usual value
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ModelError(
                f"{file}: {name} must be a whole number of at least 1; got {size!r}; "
                "set it to what the checkpoint was trained with"
            )
    for name, served in SERVED.items():
        _require(file, given, name, served)


def _require(file: Path, given: Mapping[str, Any], name: str, served: tuple[object, ...]) -> None:
    value = given.get(name)
    if value not in served:
        raise ModelError(
            f"{file}: {name} is {value!r}, which this version does not compute; give a model with {served[-1]!r}"
        )


def _completed(path: Path, architecture: Architecture) -> dict[str, Any]:
    """Return all settings, those that the file leaves out as the library knows them."""
    file = path / CONFIG
    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True)
        settings: dict[str, Any] = config.to_dict() | {"id2label": dict(config.id2label)}
    except Exception as error:  # the library's checks raise what they like
        raise ModelError(f"{file} cannot be used: {error}; correct that setting, or fetch the model again") from error
    activation = settings[architecture.activation]
    if activation not in ACTIVATIONS:
        raise ModelError(
            f"{path} uses the activation {activation!r}; known: {', '.join(ACTIVATIONS)}; give a model with one"
        )
    labels = settings["id2label"]
    if sorted(labels) != list(range(len(labels))):
        raise ModelError(f"{path}: id2label must number the labels 0 to n-1; got {sorted(labels)}; number them so")
    hidden, heads = (settings[architecture.sizes[size]] for size in ("hidden", "num_heads"))
    if hidden % heads:
        raise ModelError(
            f"{path}: a hidden size of {hidden} cannot be shared by {heads} heads; "
            f"set {architecture.sizes['num_heads']} to the number that the checkpoint was trained with"
        )
    return settings


def _head(read: _Read) -> Head:
    """Return the head that ``architectures`` of the config names; where it names none, the one whose tensors are there.

    Older checkpoints of token heads hold a pooler too, so that the config is asked first.
    """
    path, settings = read.path, read.settings
    named = read.given.get("architectures") or []
    kinds = [kind for ending, kind in CLASSES.items() if named and str(named[0]).endswith(ending)]
    if not named:
        kinds = [
            kind
            for kind in (Head.SPAN, Head.LABEL, Head.TAGS)
            if all(f"{module}.weight" in read.stored for module in read.architecture.head_modules(kind).values())
        ]
    if not kinds:
        what = f"is a {named[0]}, which has" if named else "has"
        raise ModelError(
            f"{path} {what} no classification head and none for tokens or answers; fine-tune it on a task first "
            f"(the library's models whose names end in {', '.join(CLASSES)})"
        )
    head = Head.SCORE if kinds[0] is Head.LABEL and len(settings["id2label"]) == 1 else kinds[0]
    if head in PROBLEMS:
        _require(path / CONFIG, read.given, "problem_type", PROBLEMS[head])
    if head is Head.TAGS and len(settings["id2label"]) < 2:
        raise ModelError(f"{path} has one label for all tokens, and nothing to tell apart; give a model with more")
    return head


def _first_position(file: Path, settings: Mapping[str, Any]) -> int:
    """Return the position of a sequence's first token."""
    padding, positions = settings.get("pad_token_id"), settings["max_position_embeddings"]
    if not isinstance(padding, int) or not 0 <= padding < positions - 1:
        raise ModelError(
            f"{file}: pad_token_id must be a whole number from 0 to max_position_embeddings - 2 ({positions - 2}), "
            f"for positions are counted from it; got {padding!r}; set it to what the checkpoint was trained with"
        )
    return padding + 1


def _shape(settings: Mapping[str, Any], head: Head, architecture: Architecture, first_position: int) -> Shape:
    sizes = {field: settings[name] for field, name in architecture.sizes.items()}
    return Shape(
        hidden=sizes["hidden"],
        num_layers=sizes["num_layers"],
        num_heads=sizes["num_heads"],
        head_dim=sizes["hidden"] // sizes["num_heads"],
        ffn=sizes["ffn"],
        vocabulary=sizes["vocabulary"],
        positions=sizes["positions"] - first_position,
        token_types=sizes.get("token_types", 0),
        labels=len(SPAN_LABELS) if head is Head.SPAN else len(settings["id2label"]),
        embedding=None if sizes.get("embedding") == sizes["hidden"] else sizes.get("embedding"),
        head=head,
    )


def _by_slot(
    stored: Mapping[str, Tensor], shape: Shape, architecture: Architecture, first_position: int, path: Path
) -> dict[str, Tensor]:
    """Return the tensors under slot names, every shape checked against the config.

    Of positions, those before a sequence's first are left out: no token has them.
    """
    sizes = tensor_sizes(shape, first_position)
    modules = dict(architecture.modules(shape.head, shape.num_layers))
    sources = {name: ".".join((modules[slot], part)) for name in sizes for slot, _, part in [name.rpartition(".")]}
    missing = sorted(source for source in sources.values() if source not in stored)
    if missing:
        raise ModelError(
            f"{path} lacks {len(missing)} tensors of a {architecture.name} model for {shape.head}, the first is "
            f"{missing[0]}; fetch or save the model again, or correct {architecture.sizes['num_layers']} "
            f"({shape.num_layers}) in its config.json"
        )
    known = set(sources.values())
    surplus = sorted(
        name
        for name in stored
        if name.startswith(f"{architecture.prefix}.") and name not in known and not architecture.unread(name)
    )
    if surplus:
        raise ModelError(
            f"{path} has {len(surplus)} tensors that its config.json does not speak of, the first is {surplus[0]}; set "
            f"{architecture.sizes['num_layers']} ({shape.num_layers}) to what the checkpoint was trained with, or save "
            "it again"
        )
    tensors = {name: stored[source] for name, source in sources.items()}
    for name, tensor in tensors.items():
        if tuple(tensor.shape) != sizes[name]:
            raise ModelError(
                f"{path}: {sources[name]} has shape {tuple(tensor.shape)}, config.json says {sizes[name]}; "
                "use the config.json that was saved with these weights"
            )
    positions = "embeddings.position.weight"
    return tensors | {positions: tensors[positions][first_position:].contiguous()}
