import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from pruning.encoder import load_base_model
from service.answer_memory import EXPIRY_S, KEPT, AnswerMemory, Judged
from service.errors import Invalid, NotFound
from service.internal_pages import InternalPages, peer_key
from service.protocol import Peer
from service.runtime import InferenceRuntime
from service.tally_book import TallyBook
from tests.service.control_parts import SetClock
from tests.service.inference_parts import client_of, desk_of, engine_of, runtime_of


def counted(book: TallyBook) -> tuple[int, int]:
    (tally,) = book.read()
    return tally.labelled, tally.right


def test_the_same_truth_counts_once_and_another_one_takes_its_place() -> None:
    book = TallyBook()
    memory = AnswerMemory(book)
    memory.remember("r", "v", ["a", "b"])
    for _ in range(2):
        assert memory.judge("r", ["a", "a"]) == Judged(variant_id="v", texts=2, right=1)
        assert counted(book) == (2, 1)
    memory.judge("r", ["a", "b"])
    assert counted(book) == (2, 2)
    memory.judge("r", ["b", "a"])
    assert counted(book) == (2, 0)


def test_memory_is_bounded_in_number_and_in_time() -> None:
    clock = SetClock()
    memory = AnswerMemory(TallyBook(), clock)
    for number in range(KEPT + 1):
        memory.remember(f"r{number}", "v", ["a"])
    with pytest.raises(NotFound, match="r0"):
        memory.judge("r0", ["a"])
    clock.now += EXPIRY_S
    memory.judge("r1", ["a"])
    clock.now += 1
    with pytest.raises(NotFound, match="60 minutes"):
        memory.judge("r1", ["a"])


def test_one_label_for_each_text() -> None:
    memory = AnswerMemory(TallyBook())
    memory.remember("r", "v", ["a", "b"])
    with pytest.raises(Invalid, match="2 texts; got 1 labels"):
        memory.judge("r", ["a"])


@pytest.fixture
def runtime(tiny_model_dir: Path) -> InferenceRuntime:
    return runtime_of(engine_of(load_base_model(tiny_model_dir)), tiny_model_dir)


async def answered(client: httpx.AsyncClient, request_id: str, *texts: str) -> list[str]:
    answer = await client.post("/", json={"inputs": list(texts)}, headers={"x-request-id": request_id})
    return [entries[0]["label"] for entries in answer.json()]


async def post(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    return await client.post("/v1/feedback", json=body)


async def test_true_labels_are_counted_for_the_variant_that_answered(runtime: InferenceRuntime) -> None:
    async with client_of(runtime) as client:
        labels = await answered(client, "mine", "good", "bad")
        answer = await post(client, request_id="mine", label=labels)
        assert answer.json() == {"variant_id": "0" * 16, "texts": 2, "right": 2}
        await answered(client, "other", "good")
        wrong = "negative" if labels[0] == "positive" else "positive"
        assert (await post(client, request_id="other", label=wrong)).json()["right"] == 0
        (tally,) = runtime.tallies
        assert (tally.labelled, tally.right) == (3, 2)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"request_id": "never", "label": "positive"}, 404, "never"),
        ({"request_id": "mine", "label": "joy"}, 422, "unknown label 'joy'; known: negative, positive"),
        ({"request_id": "mine", "label": ["positive", "negative"]}, 422, "1 texts; got 2 labels"),
        ({"request_id": "mine"}, 422, "label"),
        ({"request_id": "", "label": "positive"}, 422, "request_id"),
        ({"request_id": 3, "label": "positive"}, 422, "request_id"),
        ({"request_id": "mine", "label": "positive", "x": 1}, 422, "x is not known here"),
        ([], 422, "'request_id'"),
    ],
)
async def test_feedback_that_fits_no_answer_is_refused(
    runtime: InferenceRuntime, body: Any, status: int, words: str
) -> None:
    async with client_of(runtime) as client:
        await answered(client, "mine", "good")
        answer = await client.post("/v1/feedback", json=body)
        assert answer.status_code == status and words in answer.json()["detail"]


async def test_feedback_needs_the_api_key(runtime: InferenceRuntime) -> None:
    async with client_of(runtime, api_key="secret") as client:
        assert (await post(client, request_id="r", label="positive")).status_code == 401


@asynccontextmanager
async def peer(runtime: InferenceRuntime, key: str) -> AsyncIterator[Peer]:
    """Another replica's internal pages, over HTTP."""
    pages = InternalPages(CollectorRegistry(), "127.0.0.1", key)
    pages.feedback = desk_of(runtime).for_peers(asyncio.get_running_loop())
    yield Peer(replica_id="r2", metrics_address=pages.address)
    pages.close()


async def test_an_answer_of_another_replica_is_found(runtime: InferenceRuntime) -> None:
    runtime.answers.remember("theirs", "v", ["positive"])
    stranger = AnswerMemory(TallyBook())
    async with peer(runtime, peer_key("token")) as other:
        desk = desk_of(runtime, (other,), peer_key("token"))
        desk._memory = stranger
        assert (await desk.take("theirs", ["positive"]))["right"] == 1
        with pytest.raises(Invalid, match="1 texts"):
            await desk.take("theirs", ["positive", "negative"])
        with pytest.raises(NotFound):
            await desk.take("nobodys", ["positive"])
        await desk.close()


async def test_a_replica_that_is_away_may_have_answered(runtime: InferenceRuntime) -> None:
    away = Peer(replica_id="r2", metrics_address="127.0.0.1:1")
    async with client_of(runtime) as client:
        desk = desk_of(runtime, (away,))
        with pytest.raises(Exception, match="send the feedback again"):
            await desk.take("theirs", ["positive"])
        await desk.close()
        assert (await client.get("/health")).status_code == 200


@pytest.mark.parametrize(("own", "key"), [("right", ""), ("right", "wrong"), ("", ""), ("", "any")])
async def test_the_internal_page_takes_no_feedback_without_the_key(
    runtime: InferenceRuntime, own: str, key: str
) -> None:
    """A process that has no key, as the controller, takes none from anybody."""
    async with peer(runtime, own) as other, httpx.AsyncClient() as client:
        answer = await client.post(
            f"http://{other.metrics_address}/feedback",
            json={"request_id": "r", "labels": ["a"]},
            headers={"authorization": f"Bearer {key}"} if key else {},
        )
        assert answer.status_code == 401
        assert (await client.get(f"http://{other.metrics_address}/metrics")).status_code == 200


def test_the_key_of_the_peers_does_not_give_the_token_away() -> None:
    assert "token" not in peer_key("token") and peer_key("token") != peer_key("other")
