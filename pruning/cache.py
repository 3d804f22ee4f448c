"""The calibration cache: one folder per key, safetensors only, every tensor checked when read.

<root>/calibration/<key digest>/gradients.safetensors   mask gradients and Gram matrices
weights.safetensors      weight gradients, opened only by unstructured scorers
key.json                 the key in full, and the files' checksums
"""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from pruning.calibration import Calibration, CalibrationKey
from pruning.capture import Captured
from pruning.checked_tensors import read_checked
from pruning.errors import CacheError
from pruning.files import new_folder, sha256_of, write_json
from pruning.slim.bert import Site

GRADIENTS, WEIGHT_GRADIENTS, KEY = "gradients.safetensors", "weights.safetensors", "key.json"


class CalibrationCache:
    """Calibrations under one root folder."""

    def __init__(self, root: Path) -> None:
        """Use ``root``; it is made when the first calibration is written."""
        self.folder = root / "calibration"

    def __contains__(self, key: CalibrationKey) -> bool:
        """Tell whether this very key is there."""
        return (self.folder / key.digest / KEY).is_file()

    def put(self, key: CalibrationKey, captured: Captured) -> None:
        """Write one pass's result, all or nothing.

        Raises:
            CacheError: the folder cannot be written.
        """
        tensors, weights = _of_structures(captured), _of_weights(captured)
        try:
            with new_folder(self.folder / key.digest, KEY) as aside:
                save_file(tensors, aside / GRADIENTS)
                save_file(weights, aside / WEIGHT_GRADIENTS)
                checksums = {name: sha256_of(aside / name) for name in (GRADIENTS, WEIGHT_GRADIENTS)}
                write_json(aside / KEY, {"key": asdict(key), "sha256": checksums})
        except (OSError, SafetensorError) as error:
            raise CacheError(
                f"calibration could not be written to {self.folder}: {error}; free space or choose another --store"
            ) from error

    def get(self, key: CalibrationKey) -> Calibration:
        """Return the calibration of exactly this key.

        Raises:
            CacheError: there is none (the differences from those that are there are named), or a file was altered.
        """
        folder = self.folder / key.digest
        if key not in self:
            raise CacheError(self._absent(key))
        stored, checksums = _record(folder / KEY)
        if key.differences(stored):
            raise CacheError(
                f"{folder / KEY} is damaged ({'; '.join(key.differences(stored))}); delete {folder} and prepare again"
            )
        remedy = f"delete {folder} and prepare again"
        tensors = read_checked(folder / GRADIENTS, checksums[GRADIENTS], remedy)
        return _calibration(
            key,
            tensors,
            partial(read_checked, folder / WEIGHT_GRADIENTS, checksums[WEIGHT_GRADIENTS], remedy),
        )

    def _absent(self, key: CalibrationKey) -> str:
        """Say what is missing, and how the nearest key that is there differs."""
        others = []
        for path in self.folder.glob(f"[!.]*/{KEY}"):
            with suppress(CacheError):  # a damaged neighbour is not the one that was asked for
                others.append(_record(path)[0])
        message = f"no calibration for this model and these rows in {self.folder}; run 'sparsedial prepare' first"
        if not others:
            return message
        nearest = min((key.differences(other) for other in others), key=len)
        return f"{message} (the nearest one there has {'; '.join(nearest)})"


def unkept_calibration(key: CalibrationKey, captured: Captured) -> Calibration:
    """Return the calibration that a pass makes without a cache: everything stays in memory."""
    return _calibration(key, _of_structures(captured), partial(_of_weights, captured))


def _calibration(
    key: CalibrationKey, tensors: Mapping[str, Tensor], load_weight_gradients: Callable[[], Mapping[str, Tensor]]
) -> Calibration:
    return Calibration(
        key=key,
        head_gradients_MLN=tensors["head_gradients_MLN"],
        neuron_gradients_MLF=tensors["neuron_gradients_MLF"],
        grams=_per_site("gram", tensors),
        sensitivity=_per_site("sensitivity", tensors),
        tokens_L=tensors["tokens_L"],
        load_weight_gradients=load_weight_gradients,
    )


def _of_structures(captured: Captured) -> dict[str, Tensor]:
    """Return mask gradients, Gram matrices and sensitivities by the names that they are stored under."""
    tensors = {
        "head_gradients_MLN": torch.stack(captured.head_gradients_LN),
        "neuron_gradients_MLF": torch.stack(captured.neuron_gradients_LF),
        "tokens_L": torch.tensor([captured.tokens[layer] for layer in sorted(captured.tokens)]),
    }
    for (layer, site), gram in captured.grams.items():
        tensors[f"gram.{layer}.{site.value}"] = gram
        total = captured.output_gradient_squares[layer, site]
        tensors[f"sensitivity.{layer}.{site.value}"] = (total / captured.tokens[layer]).float()
    return tensors


def _of_weights(captured: Captured) -> dict[str, Tensor]:
    """Return weight gradients by the names that they are stored under."""
    means = {f"mean.{name}": total.contiguous() for name, total in captured.weight_means.items()}
    squares = {f"square.{name}": total.contiguous() for name, total in captured.weight_squares.items()}
    return means | squares


def _record(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the key that a key file holds, and the files' checksums."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return dict(values["key"]), {name: str(values["sha256"][name]) for name in (GRADIENTS, WEIGHT_GRADIENTS)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CacheError(f"{path} is damaged; delete {path.parent} and prepare again") from error


def _per_site(what: str, tensors: Mapping[str, Tensor]) -> dict[tuple[int, Site], Tensor]:
    """Return the tensors named ``<what>.<layer>.<site>`` by layer and site."""
    found = {}
    for name, tensor in tensors.items():
        kind, *place = name.split(".")
        if kind == what:
            found[int(place[0]), Site(place[1])] = tensor
    return found
