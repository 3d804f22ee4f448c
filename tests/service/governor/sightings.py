"""Observations made by hand, calm unless told otherwise."""

from dataclasses import replace
from typing import Any

from service.governor.levels import Level
from service.governor.observation import Flow, Observation
from service.load import Load
from tests.service.governor.simulation import LEVELS

FLOW = Flow(arrived_per_s=1000, answered_per_s=1000, refused_per_s=0, utilisation=0.5, model_share=1.0)


def seen(
    now_s: float = 100.0, level: Level = LEVELS[0], flow: dict[str, float] | None = None, **others: Any
) -> Observation:
    """An observation whose fast and slow rates are the same."""
    rates = replace(FLOW, **(flow or {}))
    calm = Observation(
        now_s=now_s,
        level=level,
        changing=False,
        replicas=1,
        fast=rates,
        slow=rates,
        queue_tokens=0,
        queue_s=0.0,
        p99_s=0.05,
        model_p99_s=0.05,
    )
    return replace(calm, **others)


def full(now_s: float, tokens_per_s: float, level: Level, **others: Any) -> Observation:
    """One whose lanes are busy all the time, with work that waits."""
    flow = {"arrived_per_s": tokens_per_s, "answered_per_s": tokens_per_s, "utilisation": 1.0}
    return seen(now_s, level, {**flow, **others.pop("flow", {})}, queue_s=0.1, **others)


def load(at_s: float, **counts: Any) -> Load:
    """A reading of a replica, nothing counted unless told otherwise."""
    nothing: dict[str, Any] = {
        **dict.fromkeys(("refused", "accepted", "accepted_tokens", "answered_tokens", "queue_tokens"), 0),
        **dict.fromkeys(("busy_s", "model_s", "loop_s", "queue_s"), 0.0),
        **dict.fromkeys(("p99_s", "model_p99_s")),
    }
    return Load(at_s=at_s, **{**nothing, **counts})
