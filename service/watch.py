"""Looks at what live traffic says of the variant on trial and of the committed one, and tells the rollout."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from pruning.variants import Manifest
from service.control_metrics import ControlMetrics
from service.events import GuardTripped, TrialJudged
from service.evidence import Evidence, Mark
from service.fleet import Fleet
from service.guard import disagreement, judge
from service.operations import Asker, Choice, Operation, Phase, RolloutState, new_operation_id
from service.policy_desk import PolicyDesk
from service.tally import Tally

Finding = TrialJudged | GuardTripped

RETRY_S = 10.0
"""How long after the guard turned a variant back it tries again, where that came to nothing."""


class Watch:
    """One controller's eye on live traffic. What it knows is gone with it; replicas tell their counts again."""

    def __init__(
        self,
        *,
        manifest: Callable[[str], Manifest],
        desk: PolicyDesk,
        ladder: tuple[str, ...],
        metrics: ControlMetrics,
        prepare_timeout_s: float,
    ) -> None:
        """Know nothing yet.

        Args:
            manifest: gives the manifest of a stored variant.
            desk: keeps the policy that holds.
            ladder: its levels are shown; the first, dense, is gone to where no other may be gone back to.
            metrics: of the control page.
            prepare_timeout_s: for what follows from a finding.
        """
        self._manifest = lru_cache(maxsize=64)(manifest)
        self._desk = desk
        self._ladder = ladder
        self._metrics = metrics
        self._prepare_timeout_s = prepare_timeout_s
        self.evidence = Evidence()
        self._marks: dict[str, Mark] = {}
        """By operation and by variant: when the trial that runs began, and when what is or was committed did."""
        self._generation = 0
        """The one that was committed at the last look."""

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
        self._mark(state, on_trial)
        if on_trial is not None and not on_trial.passed and (found := self._judged(on_trial, state, now)):
            return found
        return self._tripped(state, now)

    def _mark(self, state: RolloutState, on_trial: Operation | None) -> None:
        """Note when what is watched began; what a controller finds at its start counts from the beginning.

        A variant that an operator commits is judged anew. One that the service goes back to by itself is not: moment
        by moment a governor would never leave it long enough for what it answers to say anything.
        """
        variant_id, known = state.committed.variant_id, dict(self._marks)
        if state.generation != self._generation and _by_an_operator(state):
            known.pop(variant_id, None)
        self._generation = state.generation
        watched = [variant_id] if on_trial is None else [variant_id, on_trial.id]
        for name in watched:
            if name not in known:
                known[name] = self.evidence.mark() if self._marks else Mark({})
        self._marks = {name: known[name] for name in known if name in (*watched, *self._ladder)}

    def _judged(self, operation: Operation, state: RolloutState, now: float) -> TrialJudged | None:
        assert operation.variant_id is not None and operation.canary is not None
        mark = self._marks[operation.id]
        judgement = judge(
            self._desk.policy,
            operation.canary,
            self._manifest(operation.variant_id).evaluation,
            seen=self.evidence.since(mark, operation.variant_id),
            beside=self._beside(mark, state.committed.variant_id),
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

    def _beside(self, mark: Mark, committed: str) -> Tally:
        """Return what was counted of the committed variant, and of the policy's cascade, which may answer for it."""
        names = [one.cascade.cascade_id for one in self._desk.chosen_cascades]
        counted = (replace(self.evidence.since(mark, name), variant_id=committed) for name in names)
        return sum(counted, start=self.evidence.since(mark, committed))

    def _tripped(self, state: RolloutState, now: float) -> GuardTripped | None:
        committed = state.committed.variant_id
        seen = self.evidence.since(self._marks[committed], committed)
        if seen.texts == 0:
            return None
        words = disagreement(self._desk.policy, self._manifest(committed).evaluation, seen)
        if words is None or _could_not_go_back(state, now):
            return None
        return GuardTripped(
            operation_id=new_operation_id(),
            variant_id=committed,
            reason=f"{committed} was turned back: {words}",
            fallback=self._fallback(),
            accuracy_floor=self._desk.policy.accuracy_floor,
            now=now,
            deadline=now + self._prepare_timeout_s,
        )

    def _fallback(self) -> Choice:
        return Choice.of(self._manifest(self._ladder[0]))


def _could_not_go_back(state: RolloutState, now: float) -> bool:
    """Tell whether what ended last, a moment ago, was the guard's own attempt, and came to nothing."""
    last = state.history[-1] if state.history else None
    if last is None or last.asked_by is not Asker.GUARD or last.phase is Phase.COMMITTED:
        return False
    return now < (last.finished_at or 0.0) + RETRY_S


def _by_an_operator(state: RolloutState) -> bool:
    """Tell whether what is committed was asked for by one; where nobody remembers who did, it was."""
    operation = state.find(state.committed.operation_id or "")
    return operation is None or operation.asked_by is Asker.OPERATOR
