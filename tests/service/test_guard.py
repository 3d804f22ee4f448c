import random
from dataclasses import replace

import pytest

from pruning.spec import PruneSpec
from service.guard import AGREEMENT_MARGIN, Judgement, agreement_floor, disagreement, judge, p99_s
from service.metrics import SECONDS_BUCKETS
from service.operations import Canary, Cause
from service.policy import Policy
from service.tally import Compared, Tally
from tests.service.control_parts import manifest_of

EVALUATION = manifest_of(PruneSpec(sparsity=0.5)).evaluation
POLICY = Policy(accuracy_floor=0.8, agreement_floor=0.9)
CANARY = Canary(fraction=0.1, seconds=10.0)
NOTHING = Tally(variant_id="v")


def compared(texts: int, agreed: int) -> Tally:
    return Tally(variant_id="v", compared=(Compared(label="a", length="1-8", texts=texts, agreed=agreed, kl_sum=0.0),))


def answered_in(*seconds: float, failed: int = 0, timed_out: int = 0) -> Tally:
    durations = [0] * (len(SECONDS_BUCKETS) + 1)
    for one in seconds:
        durations[next((i for i, bound in enumerate(SECONDS_BUCKETS) if one <= bound), len(SECONDS_BUCKETS))] += 1
    return Tally(variant_id="v", answered=len(seconds), failed=failed, timed_out=timed_out, durations=tuple(durations))


def judged(
    seen: Tally, policy: Policy = POLICY, *, beside: Tally = NOTHING, elapsed_s: float = 1.0
) -> Judgement | None:
    return judge(policy, CANARY, EVALUATION, seen=seen, beside=beside, elapsed_s=elapsed_s)


def test_the_usual_floor_lies_a_margin_below_the_interval_of_the_evaluation_rows() -> None:
    floor = agreement_floor(Policy(accuracy_floor=0.8), EVALUATION)
    assert EVALUATION.agreement - 0.03 - AGREEMENT_MARGIN < floor < EVALUATION.agreement - AGREEMENT_MARGIN
    assert agreement_floor(POLICY, EVALUATION) == 0.9


def test_a_trial_goes_on_until_its_time_or_its_texts_are_over() -> None:
    assert judged(NOTHING) is None
    assert judged(compared(POLICY.canary_texts - 1, POLICY.canary_texts - 1)) is None
    for over in (judged(compared(POLICY.canary_texts, POLICY.canary_texts)), judged(NOTHING, elapsed_s=10.0)):
        assert over is not None and over.cause is None


def test_no_trial_is_passed_while_nothing_that_was_asked_was_answered() -> None:
    assert judged(Tally(variant_id="v", begun=1), elapsed_s=10.0) is None
    over = judged(Tally(variant_id="v", begun=2, answered=1), elapsed_s=10.0)
    assert over is not None and over.cause is None


def test_disagreement_ends_a_trial_at_once_with_the_numbers() -> None:
    judgement = judged(compared(60, 36))
    assert judgement is not None and judgement.cause is Cause.AGREEMENT
    assert "0.600 of 60 texts" in judgement.words and "floor 0.900" in judgement.words


def test_failures_end_a_trial_but_one_bad_request_does_not() -> None:
    assert judged(answered_in(*[0.01] * 200, failed=1)) is None
    judgement = judged(answered_in(*[0.01] * 20, failed=8))
    assert judgement is not None and judgement.cause is Cause.ERRORS


def test_answers_that_never_come_end_a_trial() -> None:
    judgement = judged(answered_in(timed_out=8), beside=answered_in(*[0.01] * 500, timed_out=2))
    assert judgement is not None and judgement.cause is Cause.ERRORS
    assert judgement.words == "8 of 8 requests had no answer from it in time"


@pytest.mark.parametrize("late", [5, 50, 400])
def test_a_busy_service_is_not_held_against_a_variant_that_owes_as_much_as_the_committed_one(late: int) -> None:
    beside = answered_in(*[0.01] * (500 - late), timed_out=late)
    assert judged(beside, beside=beside) is None
    assert judged(answered_in(*[0.01] * 50, timed_out=50 * late // (500 - late)), beside=beside) is None


def test_a_busy_service_does_not_hide_a_variant_that_owes_far_more() -> None:
    busy = answered_in(*[0.01] * 500, timed_out=20)
    judgement = judged(answered_in(timed_out=8), beside=busy)
    assert judgement is not None and judgement.cause is Cause.ERRORS


def test_a_variant_that_misses_the_target_which_the_committed_one_holds_is_turned_back() -> None:
    policy = POLICY.changed({"slo_p99_ms": 50})
    slow, fast = answered_in(*[0.09] * 200), answered_in(*[0.02] * 200)
    judgement = judged(slow, policy, beside=fast, elapsed_s=10.0)
    assert judgement is not None and judgement.cause is Cause.LATENCY and "100 ms" in judgement.words
    for good in (
        judged(slow, policy, beside=slow, elapsed_s=10.0),
        judged(fast, policy, beside=fast, elapsed_s=10.0),
        judged(answered_in(*[0.09] * 20), policy, beside=fast, elapsed_s=10.0),
        judged(slow, POLICY, beside=fast, elapsed_s=10.0),
    ):
        assert good is not None and good.cause is None


def test_the_99th_percentile_is_rounded_up_to_a_bucket() -> None:
    assert p99_s(answered_in(*[0.009] * 990, *[0.19] * 10)) == 0.01
    assert p99_s(answered_in(*[0.009] * 980, *[0.19] * 20)) == 0.2
    assert p99_s(answered_in(*[99.0] * 100)) == float("inf")
    assert p99_s(answered_in(*[0.009] * 99)) is None


@pytest.mark.parametrize(("agreement", "alarms"), [(0.93, 0), (0.6, 100)])
def test_over_a_hundred_runs_a_clean_variant_stays_and_a_poisoned_one_goes(agreement: float, alarms: int) -> None:
    """Looked at after every text of 300."""
    policy = replace(POLICY, false_alarm_rate=0.01)

    def alarm(seed: int) -> bool:
        draw, agreed = random.Random(seed), 0
        for texts in range(1, 301):
            agreed += draw.random() < agreement
            if disagreement(policy, EVALUATION, compared(texts, agreed)):
                return True
        return False

    assert abs(sum(map(alarm, range(100))) - alarms) <= 3
