import asyncio

import pytest

from loadtests.peers.common.micro_batcher import MAX_TEXTS, Answers, MicroBatcher


def answers(texts: list[str]) -> Answers:
    return [{"label": text, "score": 1.0} for text in texts]


async def test_everyone_gets_the_answers_to_their_own_texts_in_order() -> None:
    batches: list[int] = []

    def compute(texts: list[str]) -> Answers:
        batches.append(len(texts))
        return answers(texts)

    batcher = MicroBatcher(compute)
    requests = [[f"{number}-{place}" for place in range(number % 3 + 1)] for number in range(50)]
    assert await asyncio.gather(*map(batcher, requests)) == list(map(answers, requests))
    assert len(batches) < len(requests) and max(batches) < MAX_TEXTS + 3


async def test_an_error_reaches_all_of_its_batch_and_no_later_one() -> None:
    def compute(texts: list[str]) -> Answers:
        if "wrong" in texts:
            raise ValueError("wrong")
        return answers(texts)

    batcher = MicroBatcher(compute)
    told = await asyncio.gather(batcher(["fine"]), batcher(["wrong"]), return_exceptions=True)
    assert all(isinstance(each, ValueError) for each in told)
    assert await batcher(["fine"]) == answers(["fine"])


async def test_a_request_that_was_given_up_disturbs_nobody() -> None:
    batcher = MicroBatcher(answers)
    given_up = asyncio.create_task(batcher(["a"]))
    await asyncio.sleep(0)
    given_up.cancel()
    assert await batcher(["b"]) == answers(["b"])
    with pytest.raises(asyncio.CancelledError):
        await given_up
