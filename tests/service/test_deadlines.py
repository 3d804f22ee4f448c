import asyncio

import pytest

from service.deadlines import HEADER, LONGEST_MS, Deadline, deadline_of
from service.errors import Invalid


@pytest.mark.parametrize(
    ("headers", "limit_s", "wanted"),
    [
        ({}, 30.0, False),
        ({HEADER: "250"}, 0.25, True),
        ({HEADER: "1"}, 0.001, True),
        ({HEADER: str(LONGEST_MS)}, 30.0, False),
    ],
)
def test_the_earlier_of_header_and_own_limit_counts_from_the_arrival(
    headers: dict[str, str], limit_s: float, wanted: bool
) -> None:
    assert deadline_of(headers, 100.0, 30.0) == Deadline(at=100.0 + limit_s, limit_s=limit_s, wanted=wanted)


@pytest.mark.parametrize("value", ["", "0", "-5", "1.5", "1e3", "soon", "NaN", "²", str(LONGEST_MS + 1), "9" * 5000])
def test_what_is_no_number_of_milliseconds_is_refused_by_name(value: str) -> None:
    with pytest.raises(Invalid, match=r"x-deadline-ms must be whole milliseconds from 1 to 86400000") as refused:
        deadline_of({HEADER: value}, 0.0, 30.0)
    assert len(str(refused.value)) < 200


async def test_a_deadline_passes_and_says_whose_it_was() -> None:
    now = asyncio.get_running_loop().time()
    own, past = Deadline.in_seconds(30.0), Deadline(at=now - 1, limit_s=0.25, wanted=True)
    assert (own.passed, past.passed) == (False, True)
    assert (str(own), str(past)) == ("30 s", "the 0.25 s of x-deadline-ms")
