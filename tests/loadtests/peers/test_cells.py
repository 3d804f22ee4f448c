import pytest

from loadtests.client import Clock
from loadtests.peers.cells import Reading, Shape, read
from loadtests.peers.proc import Tree
from loadtests.phases import summarize
from loadtests.target import Target
from tests.loadtests.fake_service import FakeService


@pytest.mark.parametrize("word", ["c1", "c32", "b2x32", "b1x8"])
def test_a_load_is_told_as_it_is_written(word: str) -> None:
    assert str(Shape.parsed(word)) == word


def test_a_word_says_clients_and_texts() -> None:
    assert Shape.parsed("c8") == Shape(clients=8)
    assert Shape.parsed("b2x32") == Shape(clients=2, texts=32)


@pytest.mark.parametrize("word", ["", "c", "c0", "8", "b2", "b2x", "b0x3", "c8 ", "C8"])
def test_another_word_is_no_load(word: str) -> None:
    with pytest.raises(ValueError, match="such as c8 or b2x32"):
        Shape.parsed(word)


async def test_a_reading_counts_texts_not_requests_and_not_the_warm_up(service: FakeService) -> None:
    service.stall_s = lambda number: 0.01
    began = Clock()
    reading = await read(
        Target(url=service.url),
        Shape(clients=2, texts=4),
        [b"{}"],
        seconds=0.3,
        warm_up_s=0.2,
        timeout_s=5.0,
        tree=Tree(0),
    )
    assert reading.phase.requests < service.answered
    assert reading.items_per_s == pytest.approx(4 * reading.phase.requests / reading.phase.seconds)
    assert reading.phase.seconds < began.now() - 0.15


async def test_failed_requests_give_no_texts(service: FakeService) -> None:
    service.status_of = lambda number: 503
    reading = await read(
        Target(url=service.url), Shape(clients=1), [b"{}"], seconds=0.1, warm_up_s=0.01, timeout_s=5.0, tree=Tree(0)
    )
    assert reading.items_per_s == 0.0
    assert reading.phase.failures == {"503": reading.phase.requests}


@pytest.mark.parametrize(("cores", "disturbed"), [(0.0, False), (0.2, False), (0.21, True)])
def test_a_reading_is_marked_when_others_took_more_than_a_fifth_of_a_core(cores: float, disturbed: bool) -> None:
    assert Reading(items_per_s=1.0, phase=summarize("c1", [], seconds=1.0), others_cores=cores).disturbed is disturbed
