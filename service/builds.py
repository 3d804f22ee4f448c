"""Builds in the background, told as events of the rollout, whatever becomes of them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from pruning.spec import PruneSpec
from service.events import Broken, Built
from service.operations import Cause
from service.protocol import Builder, Refusal
from service.tasks import Tasks

logger = logging.getLogger(__name__)


async def run_build(
    builder: Builder,
    operation_id: str,
    spec: PruneSpec,
    *,
    in_use: frozenset[str],
    accuracy_floor: Callable[[], float],
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
        accuracy_floor=accuracy_floor(),
        now=wall(),
        deadline=wall() + prepare_timeout_s,
    )


class Builds:
    """The build of the running operation, if one is under way."""

    def __init__(self, builder: Builder, tasks: Tasks, wall: Callable[[], float], prepare_timeout_s: float) -> None:
        """Begin with none; ``tasks`` owns what runs."""
        self._builder = builder
        self._tasks = tasks
        self._wall = wall
        self._prepare_timeout_s = prepare_timeout_s
        self._running: asyncio.Task[None] | None = None

    def start(
        self,
        operation_id: str,
        spec: PruneSpec,
        *,
        in_use: frozenset[str],
        accuracy_floor: Callable[[], float],
        report: Callable[[Built | Broken], Awaitable[None]],
    ) -> None:
        """Build, then ``report`` how that went; the floor is that of the moment when it ends."""

        async def build() -> None:
            outcome = await run_build(
                self._builder,
                operation_id,
                spec,
                in_use=in_use,
                accuracy_floor=accuracy_floor,
                prepare_timeout_s=self._prepare_timeout_s,
                wall=self._wall,
            )
            self._running = None
            await report(outcome)

        self._running = self._tasks.spawn(build())

    def let_go(self) -> None:
        """End the build that is under way, if one is: nobody waits for it."""
        if self._running is not None:
            self._running.cancel()
