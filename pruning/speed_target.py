"""How sparse a cut must be to be so much faster, by the latencies that were measured on this machine."""

import bisect
from dataclasses import replace

from pruning.cutting import mask_of, ranking_of
from pruning.errors import SpecError
from pruning.masks.structures import StructureMask
from pruning.prediction import Breath, no_breath
from pruning.slim.convert import dense_mask
from pruning.spec import PruneSpec, Scope
from pruning.workbench import Workbench

STEPS = 1000
"""Sparsities are tried in thousandths."""


def require_speedup(spec: PruneSpec, speedup: float) -> None:
    """Return if a cut by ``spec`` can be asked for by its speed-up.

    Raises:
        SpecError: it has another scope than latency, or rounds, whose rankings are of one sparsity; or ``speedup`` is
            not above 1.
    """
    if spec.scope is not Scope.LATENCY:
        raise SpecError(f"a speed-up is asked of cuts by scope='latency'; got scope={spec.scope}")
    if spec.rounds > 1:
        raise SpecError(
            f"a speed-up is looked for by one ranking, and rounds={spec.rounds} rank anew on the way to a sparsity: "
            "leave the rounds out, or name a sparsity"
        )
    if not speedup > 1.0:
        raise SpecError(f"speedup must be above 1, how many times as fast as the dense model; got {speedup}")


def sparsity_for(bench: Workbench, spec: PruneSpec, speedup: float, breath: Breath = no_breath) -> float:
    """Return the least sparsity at which a cut by ``spec`` answers a batch so many times as fast as the dense model.

    The sparsity of ``spec`` counts for nothing. A sparser mask never keeps what a denser one removed, so that the first
    that is fast enough is the one of least cost, to a thousandth of the weights; of an encoder that ``is_coarse`` it is
    one that is fast enough, next to one that is not.

    Raises:
        SpecError: as ``require_speedup``, or no cut is so fast; the fastest is named.
        CacheError: no latencies were measured, or the model was not calibrated.
    """
    require_speedup(spec, speedup)
    latencies, curves = bench.latencies, ranking_of(bench, spec, breath=breath)
    dense_ms = latencies.of_model(dense_mask(bench.base.shape))

    def speedup_at(thousandths: int) -> float:
        """Return the speed-up of a cut; of one that would leave nothing, without end."""
        try:
            mask = mask_of(bench, curves, replace(spec, sparsity=thousandths / STEPS))
        except SpecError:
            return float("inf")
        assert isinstance(mask, StructureMask)  # single weights have no such scope
        return dense_ms / latencies.of_model(mask)

    found = bisect.bisect_left(range(STEPS), speedup, key=speedup_at)
    if found == STEPS or speedup_at(found) == float("inf"):
        raise SpecError(
            f"speedup {speedup:g} is beyond every cut: at sparsity {(found - 1) / STEPS:g} it is "
            f"{speedup_at(found - 1):.2f}, since {latencies.fixed_ms:.1f} of the dense model's {dense_ms:.1f} ms are "
            "not the encoder layers'; ask for less"
        )
    return found / STEPS
