"""Reading tensors that nobody altered since they were written."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pruning.errors import CacheError
from pruning.files import sha256_of


def read_checked(path: Path, checksum: str, remedy: str) -> Mapping[str, Tensor]:
    """Return the tensors of a file whose bytes are the ones written, every value finite.

    Raises:
        CacheError: it cannot be read, does not match ``checksum`` or has a value that is not finite; ends with
            ``remedy``.
    """
    try:
        if sha256_of(path) != checksum:
            raise CacheError(f"{path} does not match its checksum {checksum[:12]}; {remedy}")
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CacheError(f"{path} cannot be read: {error}; {remedy}") from error
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise CacheError(f"{path}: {name} has values that are not finite; {remedy}")
    return tensors
