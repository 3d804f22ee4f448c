"""Write a model folder that differs from the one it came from in its encoder layers alone."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pruning.architectures import ARCHITECTURES
from pruning.checkpoint import CONFIG, read_settings, weight_files
from pruning.errors import SpecError, StoreError
from pruning.files import new_folder
from pruning.heads import Head
from pruning.slim.convert import told_apart

WEIGHTS, RECORD = "model.safetensors", "pretraining.json"
COPIED = (
    CONFIG,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
)
"""Files that a model and its tokenizer consist of, beside the weights, by the library's names."""


def require_free(out: Path) -> None:
    """Return if a new folder can be made at ``out``.

    Raises:
        SpecError: there is something already.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SpecError(f"{out} is there already, and is not overwritten; name another folder, or remove it")


def write_model_folder(source: Path, layers: Mapping[str, Tensor], record: Mapping[str, Any], out: Path) -> None:
    """Write ``source`` with other encoder ``layers``, all or nothing.

    Args:
        source: a model directory, left as it is; tensors outside its encoder layers are copied as they are stored.
        layers: full-width encoder layers by slot names, as of ``Student.layers``; kept in float32, for a smaller type
            could round a weight to 0, and zeros mean something.
        record: how it came about, written beside the model.
        out: the folder to make.

    Raises:
        SpecError: there is something at ``out``.
        StoreError: it cannot be written.
    """
    require_free(out)
    try:
        tensors = {name: tensor for file in weight_files(source) for name, tensor in load_file(file).items()}
        tensors |= _by_stored_name(source, layers, tensors)
        if out.exists():
            out.rmdir()
        with new_folder(out, RECORD) as aside:
            for name in COPIED:
                if (source / name).is_file():
                    shutil.copyfile(source / name, aside / name)
            save_file(tensors, aside / WEIGHTS, metadata={"format": "pt"})
            (aside / RECORD).write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise StoreError(
            f"{out} could not be written: {error}; free space or choose another --out, and go on with --resume"
        ) from error


def _by_stored_name(source: Path, layers: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the layers as ``source`` names them: with what stands before an encoder's names, or without."""
    architecture = ARCHITECTURES[read_settings(source)["model_type"]]
    num_layers = 1 + max(int(name.split(".")[1]) for name in layers)
    modules = dict(architecture.modules(Head.TAGS, num_layers))
    named = {}
    for name, tensor in layers.items():
        for slot_name, part in told_apart(name, tensor).items():
            slot, _, kind = slot_name.rpartition(".")
            full = f"{modules[slot]}.{kind}"
            named[full if full in stored else full.removeprefix(f"{architecture.prefix}.")] = part.contiguous()
    return named
