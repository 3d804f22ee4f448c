"""What passes over the rows left behind, on disk: made once per calibration, scorer and version.

Beside the sums of streamed scorers these are the scores of the rounds of a cut (``pruning.rounds``), under the key of
the cut model's calibration, and the Gram matrices of inputs (``pruning.input_grams``), under a scorer's name of their
own.

<root>/scores/<digest of the key>/sums.safetensors   the sums
key.json   the key in full, and the file's checksum
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from pruning.checked_tensors import read_checked
from pruning.errors import CacheError
from pruning.files import digest_of, new_folder, sha256_of, write_json

SUMS, KEY = "sums.safetensors", "key.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreKey:
    """What the sums depend on."""

    calibration: str
    """Digest of the calibration's key: model, rows and their order, lengths, seed."""
    scorer: str
    scorer_version: int


class ScoreCache:
    """The sums of streamed scorers under one root folder."""

    def __init__(self, root: Path) -> None:
        """Use ``root``; it is made when the first sums are written."""
        self.folder = root / "scores"

    def __contains__(self, key: ScoreKey) -> bool:
        """Tell whether the sums of this key are there."""
        return (self._folder_of(key) / KEY).is_file()

    def get_or_make(self, key: ScoreKey, make: Callable[[], Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
        """Return the sums of this key, from disk or made and written now.

        Raises:
            CacheError: the stored sums were altered, or new ones are not finite or cannot be written.
        """
        folder = self._folder_of(key)
        if key not in self:
            self._write(folder, key, make())
        return _read(folder, key)

    def _folder_of(self, key: ScoreKey) -> Path:
        return self.folder / digest_of(asdict(key))[:16]

    def _write(self, folder: Path, key: ScoreKey, sums: Mapping[str, Tensor]) -> None:
        for name, tensor in sums.items():
            if not torch.isfinite(tensor).all():
                raise CacheError(
                    f"the scores of {name} by {key.scorer} are not finite; check the checkpoint, or take another scorer"
                )
        try:
            with new_folder(folder, KEY) as aside:
                save_file({name: tensor.contiguous() for name, tensor in sums.items()}, aside / SUMS)
                write_json(aside / KEY, {"key": asdict(key), "sha256": sha256_of(aside / SUMS)})
        except (OSError, SafetensorError) as error:
            raise CacheError(
                f"scores could not be written to {self.folder}: {error}; free space or choose another --store"
            ) from error


def _read(folder: Path, key: ScoreKey) -> Mapping[str, Tensor]:
    remedy = f"delete {folder}, and the next cut by {key.scorer} scores again"
    try:
        record = json.loads((folder / KEY).read_text(encoding="utf-8"))
        stored, checksum = record["key"], str(record["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CacheError(f"{folder / KEY} is damaged; {remedy}") from error
    if stored != asdict(key):
        raise CacheError(f"{folder / KEY} is damaged (it is of {stored}, not of {asdict(key)}); {remedy}")
    return read_checked(folder / SUMS, checksum, remedy)
