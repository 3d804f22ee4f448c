"""What ``sparsedial import`` does with a checkpoint that is sparse already. Torch comes with this file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pruning.imported import own_zeros
from pruning.spec import IMPORTED, Precision, PruneSpec
from service.ladder import prepare_ladder
from service.store_commands import Place, Rows, rows_of_variants


@dataclass(frozen=True, slots=True)
class Imported:
    """A checkpoint's own cut, and what it is worth."""

    store: Path
    zeros: dict[str, Any]
    """``sparsity``, ``pattern``, ``heads`` and ``neurons`` left in each layer, ``by_tensor``."""
    levels: Rows
    """The checkpoint as it lies there, then its cut in each precision."""


def import_model(place: Place, precisions: Sequence[Precision]) -> Imported:
    """Find the zeros of a checkpoint and put its cut into the store, evaluated and timed like any other.

    Nothing is scored: the cut is there already.

    Raises:
        SpecError: nothing in it is sparse.
        PruningError: a model, rows or store that cannot be used, or a precision that this machine has not.
    """
    bench = place.open()
    found = own_zeros(bench.base)
    own = {"sparsity": found.asked_for, "pattern": found.pattern, "scorer": IMPORTED}
    specs = [PruneSpec.from_dict(own | {"precision": precision}) for precision in precisions]
    manifests = prepare_ladder(bench, [PruneSpec(sparsity=0.0), *specs], score=False)
    zeros = {
        "sparsity": found.sparsity,
        "pattern": found.pattern.value,
        "heads": found.structures.head_counts,
        "neurons": found.structures.neuron_counts,
        "by_tensor": found.by_tensor,
    }
    return Imported(bench.root, zeros, rows_of_variants(bench, [manifest.variant_id for manifest in manifests]))
