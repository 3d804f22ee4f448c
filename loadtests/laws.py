"""What must hold in every run, whatever the machine. A broken law is exit code 1; a missed goal is only told."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from loadtests.records import Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """One law and how it fared."""

    name: str
    broken: int
    """How many times it was broken."""
    detail: str
    """The first cases, or what was checked."""

    @property
    def held(self) -> bool:
        """True when it was never broken."""
        return self.broken == 0


def no_failed_request(replies: Iterable[Reply]) -> Law:
    """Every request is answered with 200."""
    total, failures = 0, Counter[str]()
    for reply in replies:
        total += 1
        if reply.failed:
            failures[reply.error or str(reply.status)] += 1
    told = ", ".join(f"{count} x {kind}" for kind, count in failures.most_common(5))
    return Law(name="no failed request", broken=failures.total(), detail=told or f"{total} requests answered with 200")


def answered_or_refused(replies: Iterable[Reply]) -> Law:
    """Every request is answered with 200 or refused with 429: an overload times nothing out and breaks nothing."""
    replies = list(replies)
    others = Counter(reply.error or str(reply.status) for reply in replies if reply.failed and not reply.refused)
    told = ", ".join(f"{count} x {kind}" for kind, count in others.most_common(5))
    good = f"{len(replies)} requests, {sum(reply.refused for reply in replies)} of them refused"
    return Law(name="every request answered or refused", broken=others.total(), detail=told or good)


def refusals_say_when_to_come_back(replies: Iterable[Reply]) -> Law:
    """Every 429 has a ``Retry-After`` of whole seconds, at least one."""
    given = [reply.retry_after for reply in replies if reply.refused]
    good = [int(text) for text in given if text is not None and text.isdecimal() and int(text) >= 1]
    wrong = Counter(text for text in given if text is None or not text.isdecimal() or int(text) < 1)
    told = ", ".join(f"{count} x {text or 'none'}" for text, count in wrong.most_common(5))
    spread = f"{min(good)} to {max(good)} s in {len(good)} refusals" if good else "nothing was refused"
    return Law(name="every 429 has Retry-After", broken=wrong.total(), detail=told or spread)


def generation_never_goes_back(replies: Iterable[Reply]) -> Law:
    """On one connection, no answer has a lower generation than one before it; every good answer states one."""
    newest: dict[int, int] = {}
    cases: list[str] = []
    for reply in sorted((reply for reply in replies if not reply.failed), key=lambda reply: reply.done_s):
        if reply.generation is None:
            cases.append(f"request {reply.index}: no x-generation")
            continue
        before = newest.get(reply.connection, reply.generation)
        if reply.generation < before:
            cases.append(f"request {reply.index}, connection {reply.connection}: {before} then {reply.generation}")
        newest[reply.connection] = max(before, reply.generation)
    told = "; ".join(cases[:3]) or f"{len(newest)} connections, each in order"
    return Law(name="generation never goes back on a connection", broken=len(cases), detail=told)


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A figure that a run should reach; how near it comes depends on the machine."""

    name: str
    value: float
    limit: float

    @property
    def met(self) -> bool:
        """True when the value is within the limit; NaN never is."""
        return self.value <= self.limit
