"""The files of a Hugging Face model directory, as they are: settings, tensors, tokenizer. Pickles are never opened."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pruning.errors import ModelError

CONFIG = "config.json"


def read_settings(path: Path) -> dict[str, Any]:
    """Return what ``config.json`` of a model directory says.

    Raises:
        ModelError: not a directory, no such file, or one that is no JSON object.
    """
    if not path.is_dir():
        raise ModelError(f"no model directory at {path}; give a local Hugging Face directory with {CONFIG}")
    file = path / CONFIG
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        return dict(values.items())
    except FileNotFoundError:
        raise ModelError(
            f"{path} has no {CONFIG}; it is not a Hugging Face model directory: give one made by save_pretrained"
        ) from None
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise ModelError(f"{file} is not a JSON object: {error}; fetch or save the model again") from None


def read_tensors(path: Path) -> tuple[dict[str, Tensor], str]:
    """Return (tensors in float32 by stored name, digest of every tensor's name, type, shape and bytes as stored).

    Raises:
        ModelError: no safetensors weights, a file that is not whole, or a value that is not finite.
    """
    tensors: dict[str, Tensor] = {}
    digest = hashlib.sha256()
    for file in weight_files(path):
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


def tokenizer_digest(path: Path) -> str:
    """Return the digest of a model directory's ``tokenizer.json``.

    Raises:
        ModelError: there is none.
    """
    file = path / "tokenizer.json"
    if not file.is_file():
        raise ModelError(f"{path} has no tokenizer.json; save its fast tokenizer there with save_pretrained")
    return hashlib.sha256(file.read_bytes()).hexdigest()


def weight_files(path: Path) -> list[Path]:
    """Return the safetensors files of a model directory.

    Raises:
        ModelError: there is none.
    """
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
