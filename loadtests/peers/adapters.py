"""How each server is asked: its route, its body for one text or several, and where the labels are in its answer."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loadtests.errors import LoadTestError


class AnswerError(LoadTestError):
    """An answer does not have one label for each text that was sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """One server's way of being asked."""

    route: str
    write: Callable[[Sequence[str]], object]
    """Return the JSON value that asks for the labels of these texts, one or more."""
    rankings: Callable[[Any], Sequence[Any]]
    """Return what the answer says of each text: objects with ``label`` and ``score``, or the best such object alone."""

    def body(self, texts: Sequence[str]) -> bytes:
        """Return the encoded request for ``texts``."""
        return json.dumps(self.write(texts)).encode()

    def labels(self, answer: bytes, count: int) -> list[str]:
        """Return the best label of each of ``count`` texts, in their order.

        Raises:
            AnswerError: the answer is not of this server's shape or has another number of labels.
        """
        try:
            found = [_best(ranking) for ranking in self.rankings(json.loads(answer))]
        except (ValueError, TypeError, LookupError) as error:
            raise AnswerError(f"an answer without labels: {answer[:100]!r}") from error
        if len(found) != count:
            raise AnswerError(f"{len(found)} labels for {count} texts")
        return found


def _best(ranking: Any) -> str:
    """Return the label with the highest score."""
    entries: Sequence[Mapping[str, Any]] = [ranking] if isinstance(ranking, Mapping) else ranking
    return str(max(entries, key=lambda entry: float(entry["score"]))["label"])


def _pairless(texts: Sequence[str]) -> object:
    """Return text-embeddings-inference's body: a flat list of two strings would be one pair, so each text is nested."""
    return {"inputs": texts[0] if len(texts) == 1 else [[text] for text in texts]}


def _nested(answer: Any) -> Sequence[Any]:
    """Return one ranking per text, also where the only text's ranking came bare."""
    return [answer] if isinstance(answer[0], Mapping) else list(answer)


SPARSEDIAL = Adapter(route="/predict", write=_pairless, rankings=_nested)
TEXTS = Adapter(route="/classify", write=lambda texts: {"texts": list(texts)}, rankings=list)
"""What the servers written here take and give."""
INFINITY = Adapter(
    route="/classify",
    write=lambda texts: {"model": "checkpoint", "input": list(texts)},
    rankings=lambda answer: list(answer["data"]),
)
