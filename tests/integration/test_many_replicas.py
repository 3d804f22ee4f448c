"""Two replicas of one service: one generation everywhere, whole answers, counts and feedback that are shared."""

import os
import signal
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.conftest import LiveService, Start
from tests.integration.test_service import Traffic

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

MODEL = "ray::ServeReplica:model:Model"
TOGETHER_S = 10.0
"""Within it every replica follows a commit; they ask at least once a second."""
SOON_S = 120.0
"""A wait for what takes a moment on a machine with nothing else to do."""
BATCH = [
    f"{one} {other} {third}" for one in ("good", "bad", "warm") for other in ("film", "food") for third in ("we", "i")
]


@pytest.fixture(scope="module")
def service(start_service: Start) -> Iterator[LiveService]:
    service = start_service(None, "--replicas", "2")
    until(lambda: len(generations(service)) == 2)
    yield service
    assert service.stop() == 0


def until(condition: Callable[[], bool], limit_s: float = SOON_S) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def generations(service: LiveService) -> list[int]:
    """What every live replica says that it answers under."""
    return [replica["generation"] for replica in service.admin("GET", "/sparsity").json()["replicas"]]


def test_a_commit_is_in_effect_everywhere_before_its_request_returns(service: LiveService) -> None:
    for sparsity in (0.3, 0.5, 0.0):
        committed = service.dial(sparsity)
        assert generations(service) == [committed["generation"]] * 2
        answers = [service.ask().headers for _ in range(12)]  # a connection each
        assert {answer["x-generation"] for answer in answers} == {str(committed["generation"])}
        assert {answer["x-variant"] for answer in answers} == {committed["variant"]}


def test_nobody_waits_long_for_a_commit_that_nobody_waits_for(service: LiveService) -> None:
    before = max(generations(service))
    operation = service.admin("PUT", "/sparsity", json={"sparsity": 0.3}).json()
    until(lambda: service.admin("GET", f"/operations/{operation['id']}").json()["phase"] == "committed")
    until(lambda: generations(service) == [before + 1] * 2, TOGETHER_S)


def test_every_answer_is_wholly_by_the_variant_that_it_names(service: LiveService) -> None:
    """Texts of one request are answered by one variant, whatever is committed meanwhile."""
    whole = {}
    for sparsity in (0.0, 0.3, 0.5):
        answer = ask_batch(service, {"x-sparsity": f"{sparsity:g}"})
        whole[answer.headers["x-variant"]] = scores_of(answer)
    assert len(whole) == 3
    seen: set[str] = set()
    for sparsity in (0.5, 0.0, 0.3, 0.5, 0.0, 0.3):
        running = service.admin("PUT", "/sparsity", json={"sparsity": sparsity}).json()
        while running["phase"] not in ("committed", "failed", "rolled_back"):
            answer = ask_batch(service, {})
            variant = answer.headers["x-variant"]
            assert scores_of(answer) == pytest.approx(whole[variant], abs=1e-4)
            seen.add(answer.headers["x-generation"])
            running = service.admin("GET", f"/operations/{running['id']}").json()
        assert running["phase"] == "committed"
    assert len(seen) >= 4


def ask_batch(service: LiveService, headers: dict[str, str]) -> httpx.Response:
    answer = httpx.post(service.url, json={"inputs": BATCH}, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer


def scores_of(answer: httpx.Response) -> list[float]:
    """The score of ``positive`` for each text."""
    return [next(one["score"] for one in text if one["label"] == "positive") for text in answer.json()]


def test_feedback_finds_the_replica_that_gave_the_answer(service: LiveService) -> None:
    variant = service.dial(0.0)["variant"]
    before = labelled(service)
    for _ in range(3):
        answer = service.ask("a good film")
        body = {"request_id": answer.headers["x-request-id"], "label": "positive"}
        for _ in range(4):  # a connection each, so that either replica is asked
            taken = httpx.post(f"{service.url}/v1/feedback", json=body, timeout=60)
            assert taken.status_code == 200, taken.text
            assert (taken.json()["variant_id"], taken.json()["right"]) == (variant, 1)
    until(lambda: labelled(service) == before + 3)


def labelled(service: LiveService) -> int:
    online = service.admin("GET", "/sparsity").json()["online"]
    return int(online["labelled_texts"]) if online else 0


def test_what_both_replicas_compared_is_one_count(service: LiveService) -> None:
    policy = service.admin("GET", "/policy").json()
    service.dial(0.5)
    before, mine = compared(service), by_replica(service)
    service.admin("PUT", "/policy", json={"shadow_fraction": 1.0, "agreement_floor": 0.0})
    try:
        until(lambda: (service.ask(), sum(by_replica(service).values()) > sum(mine.values()))[1])  # both have heard
        asked = 0
        while asked < 20 or len(by_replica(service)) < 2:
            assert service.ask(f"{BATCH[asked % len(BATCH)]}").status_code == 200
            asked += 1
            assert asked < 500
            time.sleep(0.02)
        until(lambda: sum(by_replica(service).values()) - sum(mine.values()) >= asked)
        until(lambda: compared(service) - before == sum(by_replica(service).values()) - sum(mine.values()))
    finally:
        restored = {name: policy[name] for name in ("shadow_fraction", "agreement_floor")}
        service.admin("PUT", "/policy", json=restored)


def compared(service: LiveService) -> int:
    """Texts of the committed variant that were compared, as the controller adds them up."""
    online = service.admin("GET", "/sparsity").json()["online"]
    return int(online["texts_compared"]) if online else 0


def by_replica(service: LiveService) -> dict[str, float]:
    """The same of every replica, as its own metrics say."""
    counts: dict[str, float] = {}
    for family in text_string_to_metric_families(httpx.get(f"{service.url}/metrics", timeout=60).text):
        for sample in family.samples if family.name == "sparsedial_shadow_texts" else ():
            if sample.name.endswith("_total") and sample.value:
                name = sample.labels["replica"]
                counts[name] = counts.get(name, 0.0) + sample.value
    return counts


def test_a_replica_that_is_born_in_the_middle_of_a_swap_is_born_on_what_is_committed(service: LiveService) -> None:
    service.dial(0.0)
    killed, survivor = service.processes(MODEL)
    os.kill(killed, signal.SIGKILL)
    until(lambda: any(pid not in (killed, survivor) for pid in service.processes("ray::SERVE_REPLICA::model")))
    committed = service.dial(0.5)  # while the next one is being born
    assert committed["phase"] == "committed"
    with Traffic(service) as traffic:
        until(lambda: generations(service) == [committed["generation"]] * 2)
        until(lambda: len(traffic.answers) > 20)
    assert traffic.failed == []
    assert set(traffic.generations) == {committed["generation"]}
    assert survivor in service.processes(MODEL)
