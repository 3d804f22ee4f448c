"""One build, told as an event of the rollout, whatever becomes of it."""

import logging
from collections.abc import Callable

from pruning.spec import PruneSpec
from service.events import Broken, Built
from service.operations import Cause
from service.protocol import Builder, Refusal

logger = logging.getLogger(__name__)


async def run_build(
    builder: Builder,
    operation_id: str,
    spec: PruneSpec,
    *,
    in_use: frozenset[str],
    accuracy_floor: float,
    prepare_timeout_s: float,
    wall: Callable[[], float],
) -> Built | Broken:
    """Return how the build of ``spec`` went: the variant's essentials, or public words about what broke it."""
    try:
        outcome = await builder.build(spec, in_use)
    except Exception:
        logger.exception("operation=%s: the build failed", operation_id)
        words = "the build failed inside the service; its log says what"
        return Broken(operation_id=operation_id, error=words, cause=Cause.INTERNAL, now=wall())
    if isinstance(outcome, Refusal):
        return Broken(operation_id=operation_id, error=outcome.message, cause=outcome.cause, now=wall())
    return Built(
        operation_id=operation_id,
        variant_id=outcome.variant_id,
        achieved_sparsity=outcome.achieved_sparsity,
        accuracy=outcome.evaluation.accuracy,
        accuracy_floor=accuracy_floor,
        now=wall(),
        deadline=wall() + prepare_timeout_s,
    )
