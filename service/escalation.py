"""The second half of a cascade: what the level was not sure of goes to the dense model, within the same deadline."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from pruning.cascade import unsure
from pruning.tokenization import Encoded
from service.cascading import Rule
from service.deadlines import Deadline
from service.engine import Engine, Live
from service.errors import InferenceFailed, NotReady, Overloaded, TooLarge
from service.queued import Answered

RESERVE_S = 0.005
"""How long before its deadline a request stops to wait for the dense model: what is left makes the answer."""

Submit = Callable[[Sequence[Encoded], Deadline, Engine], Awaitable[Answered[Live]]]
"""Sequences, a deadline and an engine -> its answer; raises what ``TokenBatcher.submit`` raises."""


class Outcome(StrEnum):
    """What became of the texts that the level was not sure of."""

    ESCALATED = "escalated"
    """The dense model answered them."""
    BUSY = "busy"
    """The queue had no room for them; the level's answers stand."""
    LATE = "late"
    """The deadline came first; the level's answers stand."""
    FAILED = "failed"
    """The dense model could not answer them; the level's answers stand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Escalation:
    """One request after both halves of its cascade."""

    answered: Answered[Live]
    """Its rows together, as an answer of the level; its times are those of both passes."""
    texts: int
    unsure: int
    """Texts that the level was not sure of."""
    tokens: int
    """Tokens that the dense model computed."""
    outcome: Outcome

    def headers(self) -> dict[str, str]:
        """Return what the answer says of it."""
        if self.outcome is Outcome.ESCALATED:
            return {"x-escalated": f"{self.unsure} of {self.texts}"}
        return {"x-escalated": f"0 of {self.texts}", "x-not-escalated": f"{self.unsure} {self.outcome}"}

    def counts(self) -> dict[str, int]:
        """Return the texts by what became of them, ``sure`` or an ``Outcome``; what became of none counts 0."""
        none = dict.fromkeys((outcome.value for outcome in Outcome), 0)
        return {"sure": self.texts - self.unsure} | none | {self.outcome.value: self.unsure}


async def escalate(
    submit: Submit, answered: Answered[Live], sequences: Sequence[Encoded], rule: Rule, deadline: Deadline
) -> Escalation:
    """Return the answer of a cascade whose level has ``answered``.

    The level's answers stand where the dense model has no room, no time or no answer.
    """
    chosen = unsure(answered.rows, rule.cascade.threshold).nonzero()[0].tolist()
    outcome, tokens = Outcome.ESCALATED, 0
    if chosen:
        handed_on = [sequences[index] for index in chosen]
        until = replace(deadline, at=deadline.at - RESERVE_S)
        try:
            async with asyncio.timeout_at(until.at):
                second = await submit(handed_on, until, rule.dense)
        except (Overloaded, NotReady, TooLarge):
            outcome = Outcome.BUSY
        except TimeoutError:
            outcome = Outcome.LATE
        except InferenceFailed:
            outcome = Outcome.FAILED
        else:
            rows = answered.rows.copy()
            rows[chosen] = second.rows
            tokens = sum(len(sequence.ids) for sequence in handed_on)
            answered = replace(
                answered,
                rows=rows,
                queue_s=answered.queue_s + second.queue_s,
                inference_s=answered.inference_s + second.inference_s,
            )
    return Escalation(answered=answered, texts=len(sequences), unsure=len(chosen), tokens=tokens, outcome=outcome)
