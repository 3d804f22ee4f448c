"""The precisions of a ladder: those that were named, or by measurement the fastest one that keeps its accuracy."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pruning.frontier import newest_speeds
from pruning.prediction import multiplies_bfloat16
from pruning.slim.quantized import multiplies_integers
from pruning.spec import Precision, PruneSpec
from pruning.workbench import Workbench
from service.ladder import prepare_ladder

MOST_LOST = 0.005
"""Accuracy that the dense model may lose against float32 in a precision that is chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseReading:
    """The dense model in one precision, all read in one side-by-side run on this machine."""

    precision: Precision
    accuracy: float
    """On the evaluation rows."""
    items_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The precision that was chosen, and from what."""

    precision: Precision
    readings: Sequence[DenseReading]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {"chosen": self.precision.value, "readings": [asdict(reading) for reading in self.readings]}

    def words(self) -> str:
        """Return the choice and its readings in one line."""
        readings = "; ".join(
            f"{one.precision} {one.accuracy:.1%}, {one.items_per_s:.0f} texts/s" for one in self.readings
        )
        return (
            f"precision {self.precision}, the fastest within {100 * MOST_LOST:g} points of float32 (dense: {readings})"
        )


def choose_precision(bench: Workbench) -> Choice:
    """Return the fastest precision whose dense accuracy is within ``MOST_LOST`` of float32's.

    Candidates are float32 and what this processor multiplies faster; what was not built or timed is made now.

    Raises:
        PruningError: a dense variant cannot be built, or the store cannot be used.
    """
    candidates = [Precision.FLOAT32]
    candidates += [Precision.BFLOAT16] if multiplies_bfloat16() else []
    candidates += [Precision.INT8] if multiplies_integers() else []
    manifests = prepare_ladder(bench, [PruneSpec(sparsity=0.0, precision=one) for one in candidates])
    speeds = newest_speeds(bench.store, [manifest.variant_id for manifest in manifests])
    readings = [
        DenseReading(
            precision=manifest.spec.precision,
            accuracy=manifest.evaluation.metric.value,
            items_per_s=speeds[manifest.variant_id].items_per_s,
        )
        for manifest in manifests
    ]
    return Choice(precision=fastest_within(readings), readings=readings)


def fastest_within(readings: Sequence[DenseReading]) -> Precision:
    """Return the fastest precision within ``MOST_LOST`` of float32, the accuracy of the first reading."""
    # A whole row more or less is decided here, not the last bit of a difference.
    least = readings[0].accuracy - MOST_LOST - 1e-9
    return max((one for one in readings if one.accuracy >= least), key=lambda one: one.items_per_s).precision
