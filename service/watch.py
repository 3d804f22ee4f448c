"""Looks at what live traffic says of the variant on trial and of the committed one, and tells the rollout."""

from collections.abc import Callable
from functools import lru_cache

from pruning.variants import Manifest
from service.control_metrics import ControlMetrics
from service.events import GuardTripped, TrialJudged
from service.evidence import Evidence, Mark
from service.fleet import Fleet
from service.guard import disagreement, judge
from service.operations import Choice, Operation, Phase, RolloutState, new_operation_id
from service.policy import Policy

Finding = TrialJudged | GuardTripped


class Watch:
    """One controller's eye on live traffic. What it knows is gone with it; replicas tell their counts again."""

    def __init__(
        self,
        *,
        manifest: Callable[[str], Manifest],
        policy: Callable[[], Policy],
        ladder: tuple[str, ...],
        metrics: ControlMetrics,
        prepare_timeout_s: float,
    ) -> None:
        """Know nothing yet.

        Args:
            manifest: gives the manifest of a stored variant.
            policy: gives the policy that holds.
            ladder: its levels are shown; the first, dense, is gone to where no other may be gone back to.
            metrics: of the control page.
            prepare_timeout_s: for what follows from a finding.
        """
        self._manifest = lru_cache(maxsize=64)(manifest)
        self._policy = policy
        self._ladder = ladder
        self._metrics = metrics
        self._prepare_timeout_s = prepare_timeout_s
        self.evidence = Evidence()
        self._marks: dict[object, Mark] = {}
        """When the running trial, and the committed generation, began."""

    def hear(self, fleet: Fleet) -> None:
        """Take the counts of the live replicas, and show what they say of each level."""
        live = list(fleet)
        for report in live:
            self.evidence.hear(report)
        self.evidence.keep({report.replica_id for report in live})
        shown: set[str] = set()
        for variant_id in self._ladder:
            level = f"{self._manifest(variant_id).spec.sparsity:g}"
            if level not in shown:  # of several precisions the usual one
                shown.add(level)
                self._metrics.set_online(level, self.evidence.total(variant_id))

    def finding(self, state: RolloutState, now: float) -> Finding | None:
        """Return what the rollout should hear of now, if anything."""
        on_trial = state.operation if state.phase is Phase.TRYING else None
        self._mark(state.generation, on_trial)
        if on_trial is not None and not on_trial.passed and (found := self._judged(on_trial, state, now)):
            return found
        return self._tripped(state, now)

    def _mark(self, generation: int, on_trial: Operation | None) -> None:
        """Note when what is watched began; what a controller finds at its start counts from the beginning."""
        watched: list[object] = [generation] if on_trial is None else [generation, on_trial.id]
        first = not self._marks
        self._marks = {one: self._marks.get(one) or (Mark({}) if first else self.evidence.mark()) for one in watched}

    def _judged(self, operation: Operation, state: RolloutState, now: float) -> TrialJudged | None:
        assert operation.variant_id is not None and operation.canary is not None
        mark = self._marks[operation.id]
        judgement = judge(
            self._policy(),
            operation.canary,
            self._manifest(operation.variant_id).evaluation,
            seen=self.evidence.since(mark, operation.variant_id),
            beside=self.evidence.since(mark, state.committed.variant_id),
            elapsed_s=now - operation.entered[-1][1],
        )
        if judgement is None:
            return None
        return TrialJudged(
            operation_id=operation.id,
            cause=judgement.cause,
            words=judgement.words,
            now=now,
            deadline=now + self._prepare_timeout_s,
        )

    def _tripped(self, state: RolloutState, now: float) -> GuardTripped | None:
        committed = state.committed.variant_id
        seen = self.evidence.since(self._marks[state.generation], committed)
        if seen.texts == 0:
            return None
        words = disagreement(self._policy(), self._manifest(committed).evaluation, seen)
        if words is None:
            return None
        return GuardTripped(
            operation_id=new_operation_id(),
            variant_id=committed,
            reason=f"{committed} was turned back: {words}",
            fallback=self._fallback(),
            accuracy_floor=self._policy().accuracy_floor,
            now=now,
            deadline=now + self._prepare_timeout_s,
        )

    def _fallback(self) -> Choice:
        return Choice.of(self._manifest(self._ladder[0]))
