"""Spoils a stored variant as nothing but a fault of ours could: its checksums fit, so that it is loaded and served."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from pruning.files import digest_of, sha256_of, write_json


def disturbed(layers: dict[str, torch.Tensor], noise: float, seed: int = 1) -> dict[str, torch.Tensor]:
    """Return weights with Gaussian noise, ``noise`` times each tensor's own standard deviation; 10 leaves nothing.

    Raises:
        ValueError: weights that are no floating-point numbers.
    """
    whole = sorted(name for name, tensor in layers.items() if not tensor.is_floating_point())
    if whole:
        raise ValueError(f"{whole[0]} is of {layers[whole[0]].dtype}; only floating-point variants can be disturbed")
    generator = torch.Generator().manual_seed(seed)
    return {
        name: tensor + noise * tensor.std(correction=0) * torch.randn(tensor.shape, generator=generator).to(tensor)
        for name, tensor in layers.items()
    }


def spoil(folder: Path, noise: float) -> None:
    """Disturb the weights of the stored variant in ``folder``, as ``disturbed`` does, with checksums that fit.

    What it answered when it was judged is taken out too: whoever loads it compares, and would not serve it at all.
    """
    weights = folder / "weights.safetensors"
    save_file(disturbed(load_file(weights), noise), weights)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    del manifest["manifest_sha256"]
    manifest |= {"weights_sha256": sha256_of(weights), "probe_logits": []}
    write_json(folder / "manifest.json", manifest | {"manifest_sha256": digest_of(manifest)})
