"""What ``GET /admin/sparsity`` shows of the governor: what it saw at its last tick, and what it came to."""

from collections.abc import Iterable
from typing import Any

from service.governor.capacity import Capacity
from service.governor.levels import Level
from service.governor.moves import Move, Stay
from service.governor.observation import Observation


def governor_document(
    seen: Observation, decision: Move | Stay, capacity: Capacity, levels: Iterable[Level]
) -> dict[str, Any]:
    """Return plain values; ``levels`` are shown with what they hold, null where nobody knows."""
    return {
        "decision": _direction(decision),
        "why": decision.reason.why.value,
        "reason": decision.reason.words,
        "arrived_tokens_per_s": round(seen.fast.arrived_per_s, 1),
        "refused_per_s": round(seen.fast.refused_per_s, 1),
        "queue_s": round(seen.queue_s, 3),
        "utilisation": round(seen.fast.utilisation, 3),
        "model_share": round(seen.fast.model_share, 3),
        "p99_ms": None if seen.p99_s is None else round(1e3 * seen.p99_s, 1),
        "levels": [
            {
                "sparsity": level.sparsity,
                "variant": level.variant_id,
                "holds_tokens_per_s": _rounded(capacity.of(level, seen)),
            }
            for level in levels
        ],
    }


def _direction(decision: Move | Stay) -> str:
    if isinstance(decision, Stay):
        return "stay"
    return "sparser" if decision.sparser else "denser"


def _rounded(tokens_per_s: float | None) -> float | None:
    return None if tokens_per_s is None else round(tokens_per_s, 1)
