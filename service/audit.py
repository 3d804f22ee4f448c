"""What is told of operations: an audit line for every phase, and metrics of those that ended."""

import logging
from collections.abc import Callable

from service.control_metrics import ControlMetrics
from service.documents import operation_document
from service.event_log import EventLog
from service.fleet import Fleet
from service.operations import Operation, Phase, RolloutState
from service.policy import Policy

logger = logging.getLogger(__name__)


class Audit:
    """Keeps the books of one controller."""

    def __init__(
        self,
        metrics: ControlMetrics,
        log: EventLog,
        policy: Callable[[], Policy],
        wall: Callable[[], float],
    ) -> None:
        """Tell ``metrics`` and ``log``; ``policy`` gives the one that holds, ``wall`` the time in Unix seconds."""
        self._log = log
        self._metrics = metrics
        self._policy = policy
        self._wall = wall
        self._reached = 0
        self._spreading: Operation | None = None
        """The latest swap that some live replica has yet to follow."""

    def entered(self, operation: Operation) -> None:
        """Write the audit line of an operation's phase; count the operation if it has ended."""
        logger.info(
            "operation=%s kind=%s phase=%s spec=%s variant=%s accuracy=%s generation=%s asked_by=%s reason=%r trial=%r "
            "error=%r",
            operation.id,
            operation.kind,
            operation.phase,
            operation.spec.as_dict(),
            operation.variant_id,
            operation.accuracy,
            operation.generation,
            operation.asked_by,
            operation.reason,
            operation.trial,
            operation.error,
        )
        self._log.append("operation", operation_document(operation))
        if operation.finished:
            self._metrics.operation_ended(operation)
        if operation.phase is Phase.COMMITTED and (operation.generation or 0) > self._reached:
            self._spreading = operation

    def look(self, state: RolloutState, fleet: Fleet) -> bool:
        """Show where the controller and its replicas stand; tell whether the slowest replica has got somewhere else."""
        before, self._reached = self._reached, fleet.reached(state.generation)
        swap = self._spreading
        if swap is not None and (swap.generation or 0) <= self._reached:
            self._metrics.commit_seen_everywhere(max(0.0, self._wall() - (swap.finished_at or 0.0)))
            self._spreading = None
        self._metrics.set_controller(
            generation=state.generation,
            replicas=len(fleet),
            running=state.operation is not None,
            policy=self._policy(),
        )
        return self._reached != before
