import asyncio

import pytest

from service.deadlines import HEADER, LONGEST_MS, deadline_of
from service.errors import Invalid


@pytest.mark.parametrize(
    ("headers", "limit_s"),
    [({}, 30.0), ({HEADER: "250"}, 0.25), ({HEADER: "1"}, 0.001), ({HEADER: str(LONGEST_MS)}, 30.0)],
)
async def test_the_earlier_of_header_and_own_limit_counts_from_now(headers: dict[str, str], limit_s: float) -> None:
    now = asyncio.get_running_loop().time()
    deadline = deadline_of(headers, 30.0)
    assert deadline.limit_s == limit_s
    assert deadline.at == pytest.approx(now + limit_s, abs=0.5)


@pytest.mark.parametrize("value", ["", "0", "-5", "1.5", "1e3", "soon", "NaN", "²", str(LONGEST_MS + 1), "9" * 5000])
async def test_what_is_no_number_of_milliseconds_is_refused_by_name(value: str) -> None:
    with pytest.raises(Invalid, match=r"x-deadline-ms must be whole milliseconds from 1 to 86400000") as refused:
        deadline_of({HEADER: value}, 30.0)
    assert len(str(refused.value)) < 200
