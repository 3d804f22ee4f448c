"""One contestant that is up: started, asked until it answers, labelled, dialled, and gone when the block ends."""

import asyncio
import secrets
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp

from loadtests.admin import AdminClient
from loadtests.errors import AdminError
from loadtests.peers.adapters import AnswerError
from loadtests.peers.catalog import HERE, Contestant, Place
from loadtests.peers.environments import clean_environment
from loadtests.peers.process import PeerError, Process
from loadtests.target import Target

POLL_S = 0.2
LABEL_TEXTS = 32
"""Texts in one request for labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A contestant that answers."""

    contestant: Contestant
    target: Target
    process: Process
    start_s: float
    """Seconds from the command to the first good answer."""
    token: str
    timeout_s: float

    async def dial(self, level: float) -> None:
        """Turn SparseDial's dial and wait until every replica answers by the level.

        Raises:
            PeerError: the level was not committed.
        """
        try:
            async with AdminClient(self.target.url, self.token) as admin:
                operation = await admin.dial(level)
        except AdminError as error:
            raise PeerError(str(error)) from error
        if not operation.committed:
            raise PeerError(f"{operation.phase} {operation.detail}".strip())

    async def labels(self, texts: Sequence[str]) -> list[str]:
        """Return the server's label of each text.

        Raises:
            PeerError: it refuses, or answers with something else.
        """
        found: list[str] = []
        async with self._session() as session:
            for start in range(0, len(texts), LABEL_TEXTS):
                found += await _ask(session, self, texts[start : start + LABEL_TEXTS])
        return found

    def check(self) -> None:
        """Raise ``PeerError`` if it has ended by itself."""
        if self.process.ended:
            raise PeerError(f"ended by itself: {self.process.last_words()}")

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(headers=self.target.headers, timeout=aiohttp.ClientTimeout(total=self.timeout_s))

    async def first_answer(self, text: str, limit_s: float) -> float:
        """Ask until it answers; return the seconds that took.

        Raises:
            PeerError: it ended, or did not answer well within ``limit_s``.
        """
        began_s = time.perf_counter()
        seen = "no answer"
        async with self._session() as session:
            while (took_s := time.perf_counter() - began_s) < limit_s:
                if self.process.ended:
                    raise PeerError(f"does not start: {self.process.last_words()}")
                try:
                    await _ask(session, self, [text])
                    return time.perf_counter() - began_s
                except PeerError as error:
                    seen = str(error)
                await asyncio.sleep(POLL_S)
        raise PeerError(f"does not answer within {took_s:.0f} s: {seen}; {self.process.last_words()}")


async def _ask(session: aiohttp.ClientSession, server: Server, texts: Sequence[str]) -> list[str]:
    adapter = server.contestant.adapter
    try:
        async with session.post(server.target.endpoint, data=adapter.body(texts)) as response:
            answer = await response.read()
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise PeerError(f"{type(error).__name__} for {len(texts)} texts") from error
    if response.status != 200:
        raise PeerError(f"status {response.status} for {len(texts)} texts: {answer[:80]!r}")
    try:
        return adapter.labels(answer, len(texts))
    except AnswerError as error:
        raise PeerError(str(error)) from error


@asynccontextmanager
async def running(
    contestant: Contestant, place: Place, *, log: Path, text: str, start_limit_s: float, timeout_s: float
) -> AsyncIterator[Server]:
    """Start a contestant on a free loopback port, give the block the server once it answers, and end it after.

    Raises:
        PeerError: it does not start.
    """
    place = replace(place, port=_free_port())
    token = secrets.token_hex(16)
    variables = {**clean_environment(), **place.variables(), **contestant.variables}
    if contestant.folder is None:
        variables |= {"SPARSEDIAL_ADMIN_TOKEN": token}
        del variables["PYTHONPATH"]
    process = Process(contestant.start(place), folder=contestant.folder or HERE, environment=variables, log=log)
    with process:
        server = Server(
            contestant=contestant,
            target=Target(url=f"http://127.0.0.1:{place.port}", route=contestant.adapter.route),
            process=process,
            start_s=0.0,
            token=token,
            timeout_s=timeout_s,
        )
        yield replace(server, start_s=await server.first_answer(text, start_limit_s))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
