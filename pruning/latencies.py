"""What sublayers of every size take on this machine: measured once, and kept for cuts that are to save time.

Weights are a fair measure of time until they are not: attention takes more of it for each weight than an FFN does, the
longer the texts the more; and of the last layer below a head that reads one token, next to nothing is computed. So a
table says what a layer's attention takes with so many eighths of its heads, and its FFN of its neurons, in the layers
and in the last one, as ZipLM (Kurtic et al., 2023) measures levels of every sublayer in place of counting weights.

Models are measured in which all layers but the last one, or the last one alone, have that size and nothing else: less
what a model with nothing in its layers takes, the rest is theirs. Departure from ZipLM: sizes between those that were
measured are on a straight line.

<root>/latencies/<digest of architecture and rows>.json
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pruning.capture import Progress
from pruning.checked_json import read_checked_json, with_checksum
from pruning.cost import Shape
from pruning.encoder import BaseModel
from pruning.errors import CacheError
from pruning.files import digest_of, write_json
from pruning.masks.structures import CostCurve, Curve, Kind, StructureMask
from pruning.processor import processor
from pruning.slim.convert import build_slim, dense_mask, slim_layers
from pruning.slim.packed import PackedBatch, TokenSequence
from pruning.timing import median_batch

LATENCIES_VERSION = 2
POINTS = 8
"""Sizes of each kind that are measured, beside none."""
SWEEPS, REPEATS = 5, 3
"""Every size is measured anew in every sweep; of all readings the least counts: what disturbs only ever adds."""
ELSEWHERE = "delete it, and 'sparsedial prune' with --scope latency measures it again"

Points = tuple[tuple[int, float], ...]
"""(heads or neurons that are left, milliseconds), from none on; milliseconds never fall."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Latencies:
    """Milliseconds of one batch."""

    num_layers: int
    sizes: Mapping[Kind, int]
    """Heads and neurons of a whole layer."""
    fixed_ms: float
    """What is no sublayer's: embeddings, norms, the head."""
    inner: Mapping[Kind, Points]
    """Of one of the layers but the last."""
    last: Mapping[Kind, Points]
    machine: Mapping[str, Any]
    """Where it was measured, for whoever reads the file."""

    @property
    def digest(self) -> str:
        """Identify all that a mask depends on."""
        return digest_of({name: value for name, value in _as_plain(self).items() if name != "machine"})

    def of_sublayer(self, layer: int, kind: Kind, left: int) -> float:
        """Return the milliseconds of a layer's attention or FFN with so many heads or neurons left."""
        widths, found = zip(*(self.last if layer == self.num_layers - 1 else self.inner)[kind], strict=True)
        return float(np.interp(left, widths, found))

    def of_model(self, mask: StructureMask) -> float:
        """Return the milliseconds of a batch through the whole model under ``mask``."""
        counts = ((Kind.HEAD, mask.head_counts), (Kind.NEURON, mask.neuron_counts))
        parts = (self.of_sublayer(layer, kind, left) for kind, each in counts for layer, left in enumerate(each))
        return self.fixed_ms + sum(parts)

    def saved(self, curve: Curve, steps: int) -> float:
        """Return the milliseconds that the first ``steps`` of a curve of heads or neurons save."""
        assert isinstance(curve, CostCurve)  # the scope goes with heads and neurons alone
        whole = self.sizes[curve.kind]
        left = whole - curve.gone_after(steps)
        return self.of_sublayer(curve.layer, curve.kind, whole) - self.of_sublayer(curve.layer, curve.kind, left)


class LatencyFile:
    """The table of one model and its rows, under a root folder."""

    def __init__(self, root: Path, base: BaseModel, rows_digest: str) -> None:
        """Use ``root``; it is made when the table is written."""
        identity = [LATENCIES_VERSION, base.architecture_digest, rows_digest]
        self._path = root / "latencies" / f"{digest_of(identity)[:16]}.json"

    @property
    def exists(self) -> bool:
        """Whether it was measured before."""
        return self._path.is_file()

    def read(self) -> Latencies:
        """Return the table.

        Raises:
            CacheError: it was never measured, or was altered since.
        """
        if not self.exists:
            raise CacheError(
                f"no latencies in {self._path.parent}: cuts of scope 'latency' go by what this machine takes; run "
                "'sparsedial prune SPARSITY --scope latency' first, with this store, while nothing else computes"
            )
        return _from_plain(read_checked_json(self._path, "latencies", dict, CacheError, ELSEWHERE))

    def measured_elsewhere(self) -> str | None:
        """Return words on a table that came with its store from another processor, and None of one of this one.

        Raises:
            CacheError: as ``read``.
        """
        there, here = self.read().machine["processor"], processor()
        if there == here:
            return None
        return f"latencies were measured on {there}, this is {here}: to measure here, delete {self._path} and run again"

    def write(self, latencies: Latencies) -> None:
        """Keep a table.

        Raises:
            CacheError: it cannot be written.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._path, with_checksum("latencies", _as_plain(latencies)))
        except OSError as error:
            words = "free space or choose another --store"
            raise CacheError(f"{self._path} could not be written: {error}; {words}") from error


def measure_latencies(
    base: BaseModel, sequences: Sequence[TokenSequence], progress: Progress = lambda done, total: None
) -> Latencies:
    """Return what sublayers take, in batches of those ``sequences`` that are about as long as most.

    Of models as large as BERT-base it takes some minutes of one core. ``progress`` counts models.
    """
    shape, batch = base.shape, median_batch(sequences)
    sizes = {Kind.HEAD: shape.num_heads, Kind.NEURON: shape.ffn}
    wanted = [
        (is_last, kind, left) for is_last, kind in product((False, True), Kind) for left in _points(sizes[kind])[1:]
    ]
    least = dict.fromkeys([None, *wanted], float("inf"))
    for sweep in range(SWEEPS):
        for number, size in enumerate(least):
            least[size] = min(least[size], _milliseconds(base, _of_size(shape, size), batch))
            progress(sweep * len(least) + number + 1, SWEEPS * len(least))
    fixed = least[None]

    def points(kind: Kind, *, is_last: bool) -> Points:
        layers = 1 if is_last else max(1, shape.num_layers - 1)
        widths = _points(sizes[kind])
        taken = [0.0, *(max(0.0, least[is_last, kind, left] - fixed) / layers for left in widths[1:])]
        return tuple(zip(widths, np.maximum.accumulate(taken).tolist(), strict=True))

    return Latencies(
        num_layers=shape.num_layers,
        sizes=sizes,
        fixed_ms=fixed,
        inner={kind: points(kind, is_last=False) for kind in Kind},
        last={kind: points(kind, is_last=True) for kind in Kind},
        machine={
            "processor": processor(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "tokens": batch.num_tokens,
        },
    )


def _points(size: int) -> list[int]:
    """Return the sizes to measure, from none to all."""
    return sorted({round(size * point / POINTS) for point in range(POINTS + 1)})


def _of_size(shape: Shape, size: tuple[bool, Kind, int] | None) -> StructureMask:
    """Return a mask that leaves so many heads or neurons in the last layer or in all others, and nothing else."""
    mask = dense_mask(shape)
    mask.heads_LN[:], mask.neurons_LF[:] = False, False
    if size is not None:
        is_last, kind, left = size
        layers = slice(shape.num_layers - 1, None) if is_last else slice(0, shape.num_layers - 1)
        (mask.heads_LN if kind is Kind.HEAD else mask.neurons_LF)[layers, :left] = True
    return mask


@torch.inference_mode()
def _milliseconds(base: BaseModel, mask: StructureMask, batch: PackedBatch) -> float:
    """Return the least time of a batch, in milliseconds, once the model is warm."""
    model = build_slim(base, slim_layers(base, mask))
    taken = []
    for _ in range(REPEATS + 1):
        started = time.perf_counter()
        model(batch)
        taken.append(1e3 * (time.perf_counter() - started))
    return min(taken[1:])


def _as_plain(latencies: Latencies) -> dict[str, Any]:
    return asdict(latencies)


def _from_plain(values: Mapping[str, Any]) -> Latencies:
    def by_kind(name: str) -> dict[Kind, Points]:
        return {Kind(kind): tuple((left, taken) for left, taken in points) for kind, points in values[name].items()}

    sizes = {Kind(kind): size for kind, size in values["sizes"].items()}
    return Latencies(**{**values, "sizes": sizes, "inner": by_kind("inner"), "last": by_kind("last")})
