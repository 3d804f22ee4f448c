"""``shadow``: what the service says of live traffic, held against what the client counts on the same labelled texts."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loadtests.admin import AdminClient, service_facts
from loadtests.asking import Asker, Labelled
from loadtests.errors import LoadTestError
from loadtests.interval import wilson_interval
from loadtests.laws import Law
from loadtests.progress import say
from loadtests.result import Result, Table
from loadtests.target import Target

BATCH = 32
"""Texts asked before their shadow answers are waited for: a replica keeps no more than 64 waiting."""
POLL_S, DROPPED_S = 0.25, 10.0
"""How often counts are looked at; after which time a later batch's shadow answers were dropped."""
SHADOWED = {"shadow_fraction": 1.0, "agreement_floor": 0.0}
"""Every answer is compared, and the guard does not end the test."""
LEGEND = (
    "*Online*: as the service counted while it answered. *Offline*: both levels asked for the same texts by name. "
    "The interval is the 95 % Wilson score interval of the online count."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowOptions:
    """What to ask, and by which level."""

    texts: Sequence[tuple[str, str]]
    """(text, true label)."""
    level: float = 0.7
    clients: int = 4
    limit_s: float = 120.0
    """How long the shadow answers of a batch may take; those that were dropped never come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What the service had counted of one variant at some moment."""

    texts: int = 0
    agreed: int = 0
    labelled: int = 0
    right: int = 0

    def since(self, before: "Counts") -> "Counts":
        """Return what came after ``before``."""
        return Counts(
            texts=self.texts - before.texts,
            agreed=self.agreed - before.agreed,
            labelled=self.labelled - before.labelled,
            right=self.right - before.right,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Offline:
    """What the client counted."""

    texts: int
    agreed: int
    right: int
    """Of the default answers, those with the true label."""


async def run(target: Target, admin: AdminClient, shadowing: ShadowOptions) -> Result:
    """Ask every text by the level as live traffic, post the true labels, then ask by both levels; compare.

    What was committed and the policy are put back afterwards.

    Raises:
        LoadTestError: the level is not committed, or a text is refused.
    """
    facts = {"target": target.endpoint, **await service_facts(target)}
    texts = [text for text, _ in shadowing.texts]
    spec, policy = await admin.spec(), await admin.policy()
    await admin.set_policy(**SHADOWED)
    try:
        operation = await admin.dial(shadowing.level, canary=False)
        if not operation.committed:
            raise LoadTestError(f"level {shadowing.level:g} was not committed: {operation.detail}")
        variant = str((await admin.state())["variant"])
        before = await _counts(admin, variant)
        async with Asker(target, clients=shadowing.clients) as asker:
            answers = await _ask_shadowed(asker, admin, variant, shadowing, before)
            say("posting the true labels ...")
            truths = [(one.request_id, label) for one, (_, label) in zip(answers, shadowing.texts, strict=True)]
            await asker.feed_back(truths)
            online = await _labelled(admin, variant, before, len(texts), shadowing.limit_s)
            await admin.set_policy(shadow_fraction=0.0)
            say("asking both levels by name ...")
            dense = await asker.labels(texts, sparsity=0.0)
            sparse = await asker.labels(texts, sparsity=shadowing.level)
    finally:
        await admin.set_policy(**{member: policy[member] for member in SHADOWED})
        await admin.dial(**spec, canary=False)
    offline = Offline(
        texts=len(texts),
        agreed=sum(one.label == other.label for one, other in zip(dense, sparse, strict=True)),
        right=sum(one.label == label for one, (_, label) in zip(answers, shadowing.texts, strict=True)),
    )
    return _judge(online, offline, answers, variant, facts | {"level": f"{shadowing.level:g} ({variant})"})


async def _ask_shadowed(
    asker: Asker, admin: AdminClient, variant: str, shadowing: ShadowOptions, before: Counts
) -> list[Labelled]:
    """Return the answers to all texts, asked in batches with time for their shadow answers in between."""
    answers: list[Labelled] = []
    texts = [text for text, _ in shadowing.texts]
    for start in range(0, len(texts), BATCH):
        answers += await asker.labels(texts[start : start + BATCH])
        seen = await _until(admin, variant, before, "texts", len(answers), DROPPED_S if start else shadowing.limit_s)
        say(f"{len(answers)} of {len(texts)} asked, {seen.texts} compared")
    return answers


async def _labelled(admin: AdminClient, variant: str, before: Counts, texts: int, limit_s: float) -> Counts:
    return await _until(admin, variant, before, "labelled", texts, limit_s)


async def _until(admin: AdminClient, variant: str, before: Counts, what: str, wanted: int, limit_s: float) -> Counts:
    """Return the counts since ``before`` once ``wanted`` is reached, or as they are after ``limit_s``."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + limit_s
    while True:
        seen = (await _counts(admin, variant)).since(before)
        if getattr(seen, what) >= wanted or loop.time() > deadline_s:
            return seen
        await asyncio.sleep(POLL_S)


async def _counts(admin: AdminClient, variant: str) -> Counts:
    """Return what the service has counted of the committed variant.

    Raises:
        LoadTestError: another one is committed by now.
    """
    state = await admin.state()
    if state["variant"] != variant:
        raise LoadTestError(f"{state['variant']} is committed in place of {variant}; somebody else turns the dial")
    online: dict[str, Any] = state["online"] or {}
    texts, labelled = int(online.get("texts_compared", 0)), int(online.get("labelled_texts", 0))
    return Counts(
        texts=texts,
        agreed=round((online.get("agreement") or 0.0) * texts),
        labelled=labelled,
        right=round((online.get("accuracy") or 0.0) * labelled),
    )


def _judge(
    online: Counts, offline: Offline, answers: Sequence[Labelled], variant: str, facts: dict[str, str]
) -> Result:
    """Return laws and figures of a finished run."""
    low, high = wilson_interval(online.agreed, online.texts)
    agreement = offline.agreed / offline.texts
    others = [one.variant for one in answers if one.variant != variant]
    rows = (
        ("agreement with dense", _share(online.agreed, online.texts), _share(offline.agreed, offline.texts)),
        ("its interval", f"{low:.2%} to {high:.2%}", "-"),
        ("accuracy", _share(online.right, online.labelled), _share(offline.right, offline.texts)),
    )
    return Result(
        scenario="shadow",
        facts=facts,
        phases=(),
        laws=(
            Law(
                name="the online interval holds the offline agreement",
                broken=int(not (online.texts and low <= agreement <= high)),
                detail=f"{low:.4f} to {high:.4f} of {online.texts} texts; offline {agreement:.4f} of {offline.texts}",
            ),
            Law(
                name="online accuracy is what the client counts",
                broken=int((online.right, online.labelled) != (offline.right, offline.texts)),
                detail=f"{online.right} of {online.labelled}; the client: {offline.right} of {offline.texts}",
            ),
            Law(
                name="every text is answered by the level",
                broken=len(others),
                detail=f"{len(answers)} answers" + (f", some by {others[0]}" if others else ""),
            ),
        ),
        tables=(Table(title="Online and offline", header=("what", "online", "offline"), rows=rows, legend=LEGEND),),
        details={
            "online": {
                "texts": online.texts,
                "agreed": online.agreed,
                "labelled": online.labelled,
                "right": online.right,
            },
            "offline": {"texts": offline.texts, "agreed": offline.agreed, "right": offline.right},
            "interval": [low, high],
        },
    )


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.2%} ({part} of {whole})" if whole else "nothing counted"
