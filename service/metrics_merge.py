"""One Prometheus page out of many: every sample gets a ``replica`` label, every family one HELP and one TYPE."""

import asyncio
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import httpx

from service.protocol import Peer

logger = logging.getLogger(__name__)

PEER_TIMEOUT_S = 1.0

_COMMENT = re.compile(r"# (HELP|TYPE) (?P<family>[a-zA-Z_:][\w:]*)(?: .*)?")
_SAMPLE = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})?(?P<value> \S+(?: -?\d+)?)")
_SUFFIXES = ("_bucket", "_sum", "_count", "_total", "_created")


class MalformedPage(ValueError):
    """Not a page in Prometheus' text format."""


@dataclass(slots=True)
class _Family:
    """One metric over all pages."""

    comments: dict[str, str] = field(default_factory=dict)
    """The ``# HELP`` and ``# TYPE`` lines, of the first page that has them."""
    samples: list[str] = field(default_factory=list)


def merge_pages(pages: Iterable[tuple[str, str]]) -> str:
    """Return one page of the ``(replica, page)`` pairs.

    Raises:
        MalformedPage: one of them is not in Prometheus' text format.
    """
    families: dict[str, _Family] = {}
    for replica, page in pages:
        _add_page(families, replica, page)
    lines = (line for family in families.values() for line in (*family.comments.values(), *family.samples))
    return "".join(f"{line}\n" for line in lines)


def _add_page(families: dict[str, _Family], replica: str, page: str) -> None:
    label = f'replica="{_escaped(replica)}"'
    current = ""
    for line in page.splitlines():
        if comment := _COMMENT.fullmatch(line):
            current = comment["family"]
            families.setdefault(current, _Family()).comments.setdefault(comment[1], line)
        elif sample := _SAMPLE.fullmatch(line):
            labels = f"{label},{sample['labels']}" if sample["labels"] else label
            family = current if _belongs(sample["name"], current) else sample["name"]
            text = f"{sample['name']}{{{labels}}}{sample['value']}"
            families.setdefault(family, _Family()).samples.append(text)
        elif line and not line.startswith("#"):
            raise MalformedPage(f"the page of {replica} has a line that is no sample")


def _belongs(name: str, family: str) -> bool:
    return name == family or any(name == family + suffix for suffix in _SUFFIXES)


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


class PeerPages:
    """Fetches the metrics pages of other live processes."""

    def __init__(self, timeout_s: float = PEER_TIMEOUT_S) -> None:
        """Nothing is opened before the first fetch."""
        # Peers are addresses of our own, over plain HTTP: no proxy of the environment.
        self._client = httpx.AsyncClient(timeout=timeout_s, trust_env=False)
        self._timeout_s = timeout_s

    async def fetch(self, peers: Sequence[Peer]) -> dict[str, str]:
        """Return ``{replica_id: page}`` of the peers that answer in time with a page that can be merged."""
        pages = await asyncio.gather(*(self._page(peer) for peer in peers))
        return {peer.replica_id: page for peer, page in zip(peers, pages, strict=True) if page is not None}

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _page(self, peer: Peer) -> str | None:
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._client.get(f"http://{peer.metrics_address}/metrics")
            response.raise_for_status()
            merge_pages([(peer.replica_id, response.text)])
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, MalformedPage) as error:
            logger.warning("no metrics from %s at %s: %r", peer.replica_id, peer.metrics_address, error)
            return None
        return response.text
