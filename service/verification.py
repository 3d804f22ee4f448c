"""A variant that was loaded must answer as it did when it was judged: its accuracy is that of those answers."""

import torch

from pruning.probes import probes
from pruning.spec import Precision
from service.engine import Engine
from service.engine_errors import EngineError

TOLERANCE = {Precision.FLOAT32: 0.02}
"""Largest difference of a logit, as a share of the largest logit; engines and devices add in other orders."""
LOW_PRECISION_TOLERANCE = 0.15


class AnswersChanged(EngineError):
    """A variant does not answer fixed sequences as it did when it was built."""


def verify(engine: Engine, vocabulary: int) -> None:
    """Return if the engine answers the probes as its variant's manifest says; one that says nothing is let through.

    Raises:
        AnswersChanged: it does not.
        NonFiniteLogits: a logit is not finite.
    """
    manifest = engine.manifest
    if not manifest.probe_logits:  # built before answers were kept
        return
    built = torch.tensor(manifest.probe_logits)
    difference = float((engine.predict(probes(engine.max_length, vocabulary)) - built).abs().max())
    share = TOLERANCE.get(manifest.spec.precision, LOW_PRECISION_TOLERANCE)
    allowed = share * max(1.0, float(built.abs().max()))
    if difference > allowed:
        raise AnswersChanged(
            f"variant {manifest.variant_id} does not answer as it did when it was judged (a logit differs by "
            f"{difference:.3g}, {allowed:.3g} is allowed); remove it from the store and ask for it again"
        )
