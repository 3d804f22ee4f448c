"""Recovered cuts: what training made of cuts, kept as long as the store. Variants are built from them in seconds.

<root>/recovered/<cut id>/<recipe id>/layers.safetensors   float32 encoder layers
                                     /record.json          recipe, how the training went, checksum
                         /chosen.json                      the recipe that was asked for last
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from pruning.checked_tensors import read_checked
from pruning.errors import ChecksumError, StoreError
from pruning.files import digest_of, new_folder, sha256_of, write_json

LAYERS, RECORD, CHOSEN = "layers.safetensors", "record.json", "chosen.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveredCut:
    """One cut trained by one recipe."""

    cut: str
    """16 hex digits, of the cut that it began with."""
    recipe_id: str
    """16 hex digits, of recipe and training rows."""
    recipe: dict[str, Any]
    training: dict[str, Any]
    """How it went: steps, seconds, scores of the held-out rows."""
    layers_sha256: str = ""
    """Filled in by the store."""

    @property
    def digest(self) -> str:
        """Identify recipe and weights; minutes as a bound make the weights depend on more than the recipe."""
        return digest_of([self.recipe_id, self.layers_sha256])[:16]


class RecoveredCuts:
    """Recovered cuts under one root folder. Nothing altered is ever returned."""

    def __init__(self, root: Path) -> None:
        """Use ``root``; it is made when the first one is written."""
        self.folder = root / "recovered"

    def chosen(self, cut: str) -> RecoveredCut | None:
        """Return what the recipe that was asked for last made of a cut; None where it was never trained.

        Raises:
            StoreError: a file is damaged.
        """
        path = self.folder / cut / CHOSEN
        try:
            recipe_id = str(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise StoreError(f"{path} is damaged: {error}; delete it and run 'sparsedial recover' again") from error
        return self.find(cut, recipe_id)

    def find(self, cut: str, recipe_id: str) -> RecoveredCut | None:
        """Return what a recipe made of a cut; None where it was never trained.

        Raises:
            ChecksumError: the record was altered.
        """
        path = self.folder / cut / recipe_id / RECORD
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            claimed = str(values.pop("record_sha256"))
            intact = digest_of(values) == claimed
            found = RecoveredCut(**values)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ChecksumError(f"{path} is damaged: {error}; {_remedy(path)}") from error
        if not intact:
            raise ChecksumError(f"{path} does not match its checksum {claimed[:12]}; {_remedy(path)}")
        return found

    def put(self, recovered: RecoveredCut, layers: Mapping[str, Tensor]) -> None:
        """Write what training left, all or nothing; it is not chosen yet.

        Raises:
            StoreError: it cannot be written.
        """
        try:
            with new_folder(self.folder / recovered.cut / recovered.recipe_id, RECORD) as aside:
                save_file({name: tensor.contiguous() for name, tensor in layers.items()}, aside / LAYERS)
                values = asdict(recovered) | {"layers_sha256": sha256_of(aside / LAYERS)}
                write_json(aside / RECORD, values | {"record_sha256": digest_of(values)})
        except (OSError, SafetensorError) as error:
            raise self._unwritable(error) from error

    def choose(self, cut: str, recipe_id: str) -> None:
        """Let a recipe, trained before, stand for a cut from now on.

        Raises:
            StoreError: it cannot be written.
        """
        try:
            write_json(self.folder / cut / CHOSEN, recipe_id)
        except OSError as error:
            raise self._unwritable(error) from error

    def load(self, recovered: RecoveredCut) -> dict[str, Tensor]:
        """Return the layers of a recovered cut.

        Raises:
            CacheError: they were altered, or are not finite.
        """
        path = self.folder / recovered.cut / recovered.recipe_id / LAYERS
        return dict(read_checked(path, recovered.layers_sha256, _remedy(path)))

    def _unwritable(self, error: Exception) -> StoreError:
        return StoreError(f"{self.folder} could not be written: {error}; free space or choose a writable --store")


def _remedy(path: Path) -> str:
    return f"delete {path.parent} and run 'sparsedial recover' again"
