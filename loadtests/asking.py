"""Single texts asked one by one, for the sake of the answers."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import aiohttp

from loadtests.client import best_label
from loadtests.errors import LoadTestError
from loadtests.target import Target

FEEDBACK_PATH = "/v1/feedback"
BUSY = frozenset({429, 503})
PAUSE_S, TRIES = 0.5, 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """What a text was answered."""

    label: str
    request_id: str
    variant: str


class Asker:
    """So many clients at a time; each waits and asks again where the service has no room."""

    def __init__(self, target: Target, *, clients: int, timeout_s: float = 30.0) -> None:
        """Prepare the connections."""
        self._target = target
        self._places = asyncio.Semaphore(clients)
        self._session = aiohttp.ClientSession(
            headers=target.headers,
            connector=aiohttp.TCPConnector(limit=clients),
            timeout=aiohttp.ClientTimeout(total=timeout_s),
        )

    async def __aenter__(self) -> Self:
        """Return the asker."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self._session.close()

    async def labels(self, texts: Sequence[str], *, sparsity: float | None = None) -> list[Labelled]:
        """Return the answer to each text, by the level of ``sparsity`` or by the one that answers by default.

        Raises:
            LoadTestError: a text is refused.
        """
        headers = {} if sparsity is None else {"x-sparsity": f"{sparsity:g}"}
        asked = (self._post(self._target.endpoint, {"inputs": text}, headers) for text in texts)
        return [_labelled(told, answer) for told, answer in await asyncio.gather(*asked)]

    async def feed_back(self, truths: Sequence[tuple[str, str]]) -> None:
        """Post (request id, true label) of each answer.

        Raises:
            LoadTestError: one is refused.
        """
        url = self._target.url + FEEDBACK_PATH
        await asyncio.gather(*(self._post(url, {"request_id": one, "label": label}, {}) for one, label in truths))

    async def _post(self, url: str, body: object, headers: dict[str, str]) -> tuple[Mapping[str, str], bytes]:
        async with self._places:
            for _ in range(TRIES):
                try:
                    async with self._session.post(url, data=json.dumps(body), headers=headers) as response:
                        answer = await response.read()
                except (aiohttp.ClientError, TimeoutError, OSError) as error:
                    raise LoadTestError(f"{url}: {type(error).__name__} {error}") from error
                if response.status == 200:
                    return response.headers, answer
                if response.status not in BUSY:
                    break
                await asyncio.sleep(PAUSE_S)
        raise LoadTestError(f"{url} answered {response.status}: {answer.decode(errors='replace')}")


def _labelled(headers: Mapping[str, str], answer: bytes) -> Labelled:
    label, request_id, variant = best_label(answer), headers.get("x-request-id"), headers.get("x-variant")
    if label is None or request_id is None or variant is None:
        raise LoadTestError(f"an answer has labels, x-request-id and x-variant; got {answer!r} with {dict(headers)}")
    return Labelled(label=label, request_id=request_id, variant=variant)
