"""What live traffic says of a variant: whether its trial is over, and whether it holds its agreement. Arithmetic alone.

Agreement, failures and time-outs are each judged by a test that may be looked at after every text
(``sequential_test``), so that the chance of turning back a variant that holds its floor stays below
``policy.false_alarm_rate`` however long it serves.
"""

from dataclasses import dataclass

from pruning.evaluation import Evaluation
from pruning.metrics import wilson_interval
from service.metrics import SECONDS_BUCKETS
from service.operations import Canary, Cause
from service.policy import Policy
from service.sequential_test import is_below
from service.tally import Tally

AGREEMENT_MARGIN = 0.05
"""How far below the interval of the evaluation rows the usual floor lies: live traffic is of another kind."""
SUCCESS_FLOOR = 0.99
"""Share of requests that a variant must be able to answer, and of those that it must answer in time."""
ENOUGH_ANSWERS = 100
"""Answers without which a 99th percentile says nothing."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """How a trial ended."""

    cause: Cause | None
    """Why the variant is turned back; ``None`` if it passed."""
    words: str


def agreement_floor(policy: Policy, evaluation: Evaluation) -> float:
    """Return the agreement that a variant must hold: the policy's, or what follows from the evaluation rows."""
    if policy.agreement_floor is not None:
        return policy.agreement_floor
    low, _ = wilson_interval(round(evaluation.agreement * evaluation.rows), evaluation.rows)
    return max(0.0, low - AGREEMENT_MARGIN)


def disagreement(policy: Policy, evaluation: Evaluation, seen: Tally) -> str | None:
    """Return words on a variant whose agreement on live traffic is below its floor, None while that is not sure."""
    floor = agreement_floor(policy, evaluation)
    if not is_below(seen.texts, seen.agreed, floor, policy.false_alarm_rate):
        return None
    low, high = seen.agreement_interval
    return (
        f"on live traffic it agrees with the dense model in {seen.agreement or 0.0:.3f} of {seen.texts} texts "
        f"({low:.3f} to {high:.3f}), below the floor {floor:.3f}"
    )


def judge(
    policy: Policy, canary: Canary, evaluation: Evaluation, *, seen: Tally, beside: Tally, elapsed_s: float
) -> Judgement | None:
    """Return how a trial ended; None while it goes on.

    Args:
        policy: floors and targets.
        canary: how it is tried.
        evaluation: of the variant on trial.
        seen: what it did since the trial began.
        beside: what the committed variant did meanwhile.
        elapsed_s: seconds since then.
    """
    if words := disagreement(policy, evaluation, seen):
        return Judgement(Cause.AGREEMENT, words)
    if words := _failures(policy, seen, beside):
        return Judgement(Cause.ERRORS, words)
    if seen.texts < policy.canary_texts and elapsed_s < canary.seconds:
        return None
    if seen.begun and not seen.answered:  # nobody would know what is committed; the rollout gives it up in the end
        return None
    if words := _slowness(policy, seen, beside):
        return Judgement(Cause.LATENCY, words)
    return Judgement(None, f"{seen.answered} requests answered, {seen.agreed} of {seen.texts} texts as the dense model")


def p99_s(tally: Tally) -> float | None:
    """Return the 99th percentile of the total time in seconds, rounded up to a bucket; None of too few answers."""
    total = sum(tally.durations)
    if total < ENOUGH_ANSWERS:
        return None
    passed = 0
    for bound, count in zip(SECONDS_BUCKETS, tally.durations, strict=False):
        passed += count
        if passed >= 0.99 * total:
            return bound
    return float("inf")


def _failures(policy: Policy, seen: Tally, beside: Tally) -> str | None:
    """Return words on a variant that cannot answer, or does not in time, as many requests as it should.

    In time is as many as the committed one, if that owes more than it may: then it is the service that has no time.
    """
    if is_below(seen.answered + seen.failed, seen.answered, SUCCESS_FLOOR, policy.false_alarm_rate):
        return f"{seen.failed} of {seen.answered + seen.failed} requests failed on it"
    due = seen.answered + seen.timed_out
    if is_below(due, seen.answered, _floor_in_time(beside), policy.false_alarm_rate):
        return f"{seen.timed_out} of {due} requests had no answer from it in time"
    return None


def _floor_in_time(beside: Tally) -> float:
    """Return the share of requests that a variant must answer in time, by what the committed one does meanwhile."""
    due = beside.answered + beside.timed_out
    if beside.timed_out <= (1.0 - SUCCESS_FLOOR) * due:
        return SUCCESS_FLOOR
    low, _ = wilson_interval(beside.answered, due)
    return low


def _slowness(policy: Policy, seen: Tally, beside: Tally) -> str | None:
    """Return words on a variant that misses the latency target which the committed one holds."""
    own, other = p99_s(seen), p99_s(beside)
    if policy.slo_p99_ms is None or own is None or own * 1e3 <= policy.slo_p99_ms:
        return None
    if other is not None and other >= own:
        return None
    return f"its 99th percentile is {own * 1e3:g} ms, above the target {policy.slo_p99_ms:g} ms"
