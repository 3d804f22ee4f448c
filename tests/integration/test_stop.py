"""What a service leaves behind."""

import pytest

from tests.integration.conftest import Start

pytestmark = pytest.mark.ray


def test_a_clean_stop_says_that_it_stops_and_no_more(start_service: Start) -> None:
    service = start_service()
    assert service.ask().status_code == 200
    assert service.stop() == 0
    said = service.log.read_text().splitlines()
    assert said[-1] == "stopping: requests in flight are finished first"
    assert not [line for line in said if "raylet" in line]
