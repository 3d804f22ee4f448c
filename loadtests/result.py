"""What a scenario hands back, in the words that the report prints."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadtests.laws import Goal, Law
from loadtests.phases import Phase
from loadtests.records import Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of a report under one title."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    legend: str = ""
    """How to read it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One run of one scenario."""

    scenario: str
    facts: dict[str, str]
    """Settings and circumstances, as label and words."""
    phases: tuple[Phase, ...]
    laws: tuple[Law, ...]
    goals: tuple[Goal, ...] = ()
    tables: tuple[Table, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)
    """Figures beyond the phases, for JSON."""
    replies: dict[str, list[Reply]] = field(default_factory=dict)
    """Every reply, by the name of the file it goes to."""
    draw: Callable[[Path], None] | None = None
    """Draws the result into a PNG file; None where there is nothing to draw."""

    @property
    def held(self) -> bool:
        """True when no law was broken."""
        return all(law.held for law in self.laws)
