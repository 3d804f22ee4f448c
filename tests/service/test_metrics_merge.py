import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from service.internal_pages import InternalPages
from service.metrics_merge import MalformedPage, PeerPages, merge_pages
from service.protocol import Peer


def registry_of(count: int) -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("requests_total", "Requests\nanswered.", ["route"], registry=registry).labels('a"{,}\\').inc(count)
    Gauge("generation", "Generation.", registry=registry).set(count)
    Gauge("only_on_odd" if count % 2 else "only_on_even", "Sometimes.", registry=registry).set(count)
    Histogram("latency_seconds", "Latency.", ["stage"], registry=registry).labels("queue").observe(0.01 * count)
    return registry


def page_of(count: int) -> str:
    return generate_latest(registry_of(count)).decode()


def test_every_sample_keeps_its_name_and_value_and_gains_a_replica() -> None:
    pages = {"r1": page_of(1), "r2": page_of(2), "control": page_of(3)}
    merged = merge_pages(pages.items())
    expected = {
        (replica, sample.name, *sorted(sample.labels.items()), sample.value)
        for replica, page in pages.items()
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    seen = {
        (sample.labels.pop("replica"), sample.name, *sorted(sample.labels.items()), sample.value)
        for family in text_string_to_metric_families(merged)
        for sample in family.samples
    }
    assert seen == expected


def test_each_family_is_declared_once_and_stands_together() -> None:
    merged = merge_pages([("r1", page_of(1)), ("r2", page_of(2))])
    lines = merged.splitlines()
    for kind in ("HELP", "TYPE"):
        declared = [line.split()[2] for line in lines if line.startswith(f"# {kind}")]
        assert len(declared) == len(set(declared))
    families = [family.name for family in text_string_to_metric_families(merged)]
    assert len(families) == len(set(families))


@given(st.text(max_size=20))
def test_any_replica_name_survives(name: str) -> None:
    merged = merge_pages([(name.replace("\r", ""), "up 1\n")])
    (family,) = text_string_to_metric_families(merged)
    assert family.samples[0].value == 1.0


def test_timestamps_and_special_values_are_kept() -> None:
    merged = merge_pages([("r", '# just a comment\n\na 1 1700000000000\nb{x="y"} +Inf\nc{} NaN\n')])
    assert merged.splitlines() == [
        'a{replica="r"} 1 1700000000000',
        'b{replica="r",x="y"} +Inf',
        'c{replica="r"} NaN',
    ]


@pytest.mark.parametrize("page", ["<html>no</html>", "name", '{"error": "x"}', "a b c d"])
def test_what_is_no_page_is_refused(page: str) -> None:
    with pytest.raises(MalformedPage, match="r9"):
        merge_pages([("r9", page)])


@asynccontextmanager
async def answering(reply: bytes, wait: Callable[[], "asyncio.Future[None]"] | None = None) -> AsyncIterator[str]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if wait is not None:
            await wait()
        writer.write(reply)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    yield f"{host}:{port}"
    server.close()


async def test_peers_that_are_dead_slow_wrong_or_failing_are_left_out() -> None:
    server = InternalPages(registry_of(1), "127.0.0.1")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{closed.getsockname()[1]}"
    release = asyncio.get_running_loop().create_future()
    pages = PeerPages(timeout_s=0.5)
    wrong = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n<html></html>"
    failing = b"HTTP/1.1 500 Oops\r\nconnection: close\r\n\r\n"
    async with answering(wrong) as html, answering(failing) as oops, answering(b"", lambda: release) as slow:
        addresses = {"ok": server.address, "dead": dead, "html": html, "oops": oops, "slow": slow, "bad": "no address"}
        peers = [Peer(replica_id=name, metrics_address=address) for name, address in addresses.items()]
        fetched = await pages.fetch(peers)
        release.set_result(None)
    await pages.close()
    server.close()
    assert set(fetched) == {"ok"}
    assert 'generation{replica="ok"} 1.0' in merge_pages(fetched.items())
