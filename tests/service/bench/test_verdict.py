import math

import pytest

from service.bench.verdict import limiting_stage, most_that_sparsity_buys, verdict


@pytest.mark.parametrize(("share", "times"), [(0.0, 1.0), (0.5, 2.0), (0.9, 10.0), (1.0, math.inf), (1.01, math.inf)])
def test_sparsity_buys_at_most_what_amdahl_allows(share: float, times: float) -> None:
    assert most_that_sparsity_buys({"inference": share, "rest": 1 - share}) == pytest.approx(times)


def test_the_stage_that_takes_most_limits() -> None:
    assert limiting_stage({"inference": 0.3, "tokenization": 0.62, "rest": 0.08}) == "tokenization"


def test_where_tokenization_takes_most_of_the_time_it_is_said_that_sparsity_will_not_help() -> None:
    words = verdict({"inference": 0.3, "tokenization": 0.62, "rest": 0.08})
    assert words == "tokenization is 62% of the time, inference 30%; more sparsity will help little: at most 1.4 times"


def test_where_inference_takes_most_of_the_time_its_limit_is_told() -> None:
    assert verdict({"inference": 0.8, "rest": 0.2}) == (
        "inference limits, 80% of the time; more sparsity can buy at most 5.0 times"
    )


def test_a_limit_that_no_sparsity_reaches_is_not_given_as_a_number() -> None:
    assert verdict({"inference": 0.99, "rest": 0.01}).endswith(
        "more sparsity can buy nearly all that it takes off inference"
    )


def test_inference_that_leads_without_half_of_the_time_is_no_promise() -> None:
    words = verdict({"inference": 0.4, "tokenization": 0.3, "rest": 0.3})
    assert words.startswith("no stage stands out, inference 40%; more sparsity will help little")
