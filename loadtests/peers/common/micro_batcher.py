"""Requests that arrive together are answered together: a queue, a short wait, one thread that computes."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

Answers = list[dict[str, str | float]]

MAX_TEXTS = 32
WAIT_S = 0.002


class MicroBatcher:
    """Joins waiting requests, in the order they came, to batches of about ``MAX_TEXTS`` texts."""

    def __init__(self, compute: Callable[[list[str]], Answers]) -> None:
        """Prepare a thread for ``compute``; the loop begins with the first request."""
        self._compute = compute
        self._thread = ThreadPoolExecutor(1)
        self._queue: asyncio.Queue[tuple[list[str], asyncio.Future[Answers]]] = asyncio.Queue()
        self._worker: asyncio.Task[None] | None = None

    async def __call__(self, texts: list[str]) -> Answers:
        """Return the answers for ``texts`` once their batch has been computed."""
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        answers: asyncio.Future[Answers] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((texts, answers))
        return await answers

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            waiting = [await self._queue.get()]
            end_s = loop.time() + WAIT_S
            while sum(len(texts) for texts, _ in waiting) < MAX_TEXTS:
                try:
                    waiting.append(await asyncio.wait_for(self._queue.get(), max(0.0, end_s - loop.time())))
                except TimeoutError:
                    break
            joined = [text for texts, _ in waiting for text in texts]
            try:
                answers = iter(await loop.run_in_executor(self._thread, self._compute, joined))
            except Exception as error:
                for _, future in waiting:
                    if not future.done():
                        future.set_exception(error)
                continue
            for texts, future in waiting:
                own = [next(answers) for _ in texts]
                if not future.done():
                    future.set_result(own)
