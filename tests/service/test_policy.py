import math
from typing import Any

import pytest

from service.errors import Invalid
from service.policy import CascadeChoice, Mode, Policy

USUAL = Policy(accuracy_floor=0.85)
CASCADE = {"cascade": {"sparsity": 0.5, "agreement": 0.99}}


def test_some_members_change_and_the_others_stay() -> None:
    changed = USUAL.changed({"max_sparsity": 0.7, "shadow_fraction": 0})
    assert (changed.max_sparsity, changed.shadow_fraction, changed.accuracy_floor) == (0.7, 0.0, 0.85)
    assert changed.changed({}) == changed
    assert USUAL.changed(USUAL.as_dict()) == USUAL


def test_a_cascade_is_set_by_a_plain_object_and_taken_back_by_null() -> None:
    policy = USUAL.changed(CASCADE)
    assert policy.cascade == CascadeChoice(sparsity=0.5, agreement=0.99)
    assert policy.as_dict()["cascade"] == CASCADE["cascade"]
    assert USUAL.changed(policy.as_dict()) == policy
    assert policy.changed({"cascade": None}) == USUAL


def test_auto_and_its_target_may_come_together_and_go_together() -> None:
    auto = USUAL.changed({"mode": "auto", "slo_p99_ms": 50})
    assert (auto.mode, auto.slo_p99_ms) == (Mode.AUTO, 50.0)
    assert auto.changed({"mode": "manual", "slo_p99_ms": None}) == USUAL


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([], "object"),
        ({"sparsity": 0.5}, "unknown in a policy: 'sparsity'"),
        ({"mode": "fast"}, "unknown mode 'fast'; known: manual, auto"),
        ({"mode": "auto"}, "needs slo_p99_ms"),
        ({"canary_fraction": 1.5}, "canary_fraction must be a number in [0, 1]; got 1.5"),
        ({"shadow_fraction": -0.1}, "shadow_fraction must be"),
        ({"accuracy_floor": math.nan}, "accuracy_floor must be"),
        ({"accuracy_floor": "0.9"}, "accuracy_floor must be"),
        ({"max_sparsity": True}, "max_sparsity must be"),
        ({"agreement_floor": 2}, "agreement_floor must be"),
        ({"slo_p99_ms": 0}, "slo_p99_ms must be a number in (0, inf)"),
        ({"slo_p99_ms": math.inf}, "slo_p99_ms must be"),
        ({"slo_p99_ms": 10**400}, "slo_p99_ms must be"),
        ({"false_alarm_rate": 1}, "false_alarm_rate must be a number in (0, 1)"),
        ({"canary_s": 0}, "canary_s must be"),
        ({"canary_texts": 0.5}, "canary_texts must be a whole number"),
        ({"min_sparsity": 0.7, "max_sparsity": 0.5}, "min_sparsity 0.7 is above max_sparsity 0.5"),
        ({"cascade": {"sparsity": 0.5}}, "cascade must be null or"),
        ({"cascade": 0.5}, "cascade must be null or"),
        ({"cascade": {"sparsity": 0, "agreement": 0.99}}, "the cascade's sparsity must be a number in (0, 1); got 0"),
        ({"cascade": {"sparsity": 0.5, "agreement": 0.9}}, "one of 0.98, 0.99, 0.995; got 0.9"),
        ({**CASCADE, "max_sparsity": 0.4}, "sparsity 0.5 is outside the bounds, 0 to 0.4"),
        ({**CASCADE, "min_sparsity": 0.1}, "min_sparsity 0.1 forbids"),
        ({**CASCADE, "mode": "auto", "slo_p99_ms": 50}, "set cascade to null"),
        ({"min_sparsity": 0.7, "max_sparsity": 0.5, "mode": "manual"}, "min_sparsity 0.7 is above"),
    ],
)
def test_what_cannot_be_valid_is_named_with_its_value_and_range(members: Any, words: str) -> None:
    with pytest.raises(Invalid) as refused:
        USUAL.changed(members)
    assert words in refused.value.detail


def test_bounds_allow_their_ends() -> None:
    policy = USUAL.changed({"min_sparsity": 0.3, "max_sparsity": 0.7})
    assert [policy.allows(sparsity) for sparsity in (0.0, 0.3, 0.5, 0.7, 0.71)] == [False, True, True, True, False]
