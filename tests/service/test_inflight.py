import asyncio

import pytest

from service.inflight import InFlight
from service.load_meter import LoadMeter
from service.metrics import ReplicaMetrics


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, "ok"),
        (400, "client_error"),
        (401, "client_error"),
        (413, "client_error"),
        (422, "client_error"),
        (429, "overloaded"),
        (500, "error"),
        (503, "draining"),
        (504, "timeout"),
        (None, "client_error"),
    ],
)
def test_every_status_has_its_outcome(status: int | None, outcome: str) -> None:
    metrics, meter = ReplicaMetrics("1.0"), LoadMeter()
    with InFlight(metrics, meter).track("/") as exchange:
        exchange.status = status
    assert f'sparsedial_requests_total{{outcome="{outcome}",route="/"}} 1.0' in metrics.page()
    assert 'sparsedial_request_duration_seconds_count{route="/"} 1.0' in metrics.page()
    assert (meter.load(queue_tokens=0, queue_s=0.0).p99_s is not None) == (outcome == "ok")


async def test_waiting_for_none_ends_with_the_last_even_after_an_error() -> None:
    inflight = InFlight(ReplicaMetrics("1.0"), LoadMeter())
    await inflight.none()
    with inflight.track("/"):
        with pytest.raises(RuntimeError), inflight.track("/predict"):
            raise RuntimeError
        assert inflight.count == 1
        waiting = asyncio.create_task(inflight.none())
        await asyncio.sleep(0)
        assert not waiting.done()
    await waiting
    assert inflight.count == 0
