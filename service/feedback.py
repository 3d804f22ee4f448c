"""True labels that come back: for an answer of this replica, or of one of its peers."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict, Field

from service.answer_memory import AnswerMemory
from service.errors import Invalid, NotFound, NotReady
from service.fleet import CONTROL_ID
from service.internal_pages import FEEDBACK_PATH
from service.problems import shown
from service.protocol import Peer

PEER_TIMEOUT_S = 2.0
NAMED_LABELS = 20
"""Labels that a refusal names."""


class FeedbackRequest(BaseModel):
    """Body of ``POST /v1/feedback``."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    request_id: str = Field(min_length=1, max_length=128, description="The x-request-id of the answer.")
    label: str | list[str] = Field(description="The true label; of a request of several texts one for each, in order.")

    def labels(self, known: Sequence[str]) -> list[str]:
        """Return the true labels.

        Raises:
            Invalid: one that the model does not have.
        """
        labels = [self.label] if isinstance(self.label, str) else self.label
        unknown = next((label for label in labels if label not in known), None)
        if unknown is not None:
            more = ", ..." if len(known) > NAMED_LABELS else ""
            raise Invalid(f"unknown label {shown(unknown)}; known: {', '.join(known[:NAMED_LABELS])}{more}.")
        return labels


class FeedbackDesk:
    """Takes feedback for the whole service; all methods run on the event loop, but for ``for_peers``."""

    def __init__(self, memory: AnswerMemory, *, replica_id: str, peers: Callable[[], Sequence[Peer]], key: str) -> None:
        """Ask nobody yet.

        Args:
            memory: the answers of this replica.
            replica_id: this replica's own id among the peers.
            peers: the live processes of the service.
            key: what opens the peers' internal pages.
        """
        self._memory = memory
        self._replica_id = replica_id
        self._peers = peers
        # Peers are addresses of our own, over plain HTTP: no proxy of the environment.
        self._client = httpx.AsyncClient(
            timeout=PEER_TIMEOUT_S, trust_env=False, headers={"authorization": f"Bearer {key}"}
        )

    async def take(self, request_id: str, labels: Sequence[str]) -> dict[str, Any]:
        """Return what the true labels of a request say, wherever it was answered.

        Raises:
            NotFound: no live replica remembers it.
            Invalid: the number of labels is not that of its texts.
            NotReady: a replica that may remember it does not answer.
        """
        try:
            return asdict(self._memory.judge(request_id, labels))
        except NotFound as error:
            others = [one for one in self._peers() if one.replica_id not in (self._replica_id, CONTROL_ID)]
            answers = await asyncio.gather(*(self._ask(peer, request_id, labels) for peer in others))
            return _decided(answers, error)

    def for_peers(self, loop: asyncio.AbstractEventLoop) -> Callable[[str, list[str]], dict[str, Any]]:
        """Return what takes feedback from peers, in any thread, for answers of this replica alone."""

        async def judge(request_id: str, labels: list[str]) -> dict[str, Any]:
            return asdict(self._memory.judge(request_id, labels))

        def take(request_id: str, labels: list[str]) -> dict[str, Any]:
            return asyncio.run_coroutine_threadsafe(judge(request_id, labels), loop).result(PEER_TIMEOUT_S)

        return take

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _ask(self, peer: Peer, request_id: str, labels: Sequence[str]) -> "_PeerAnswer":
        body = {"request_id": request_id, "labels": list(labels)}
        try:
            answer = await self._client.post(f"http://{peer.metrics_address}{FEEDBACK_PATH}", json=body)
            return _PeerAnswer(answer.status_code, answer.json())
        except (httpx.HTTPError, httpx.InvalidURL, ValueError):
            return _PeerAnswer(NotReady.status, {})


@dataclass(frozen=True, slots=True)
class _PeerAnswer:
    """What a peer said: a status and a JSON object."""

    status: int
    body: dict[str, Any]


def _decided(answers: Sequence[_PeerAnswer], unknown: NotFound) -> dict[str, Any]:
    """Return the answer of the replica that remembers the request, or raise what follows from all of them."""
    for answer in answers:
        if answer.status == 200:
            return answer.body
        if answer.status == Invalid.status:
            raise Invalid(str(answer.body.get("detail", "The labels do not fit the request.")))
    if any(answer.status != NotFound.status for answer in answers):
        raise NotReady("A replica that may have answered it is not there; send the feedback again.", retry_after_s=1)
    raise unknown
