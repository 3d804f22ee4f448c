"""What is compared with what."""

from dataclasses import dataclass

from pruning.errors import DataError, SpecError
from pruning.scores import SCORERS, scorer_named
from pruning.spec import STRUCTURES_ALONE, Pattern, PruneSpec, Recover, Structures
from pruning.workbench import CALIBRATION_ROWS

USUAL_SCORERS = ("fisher", "taylor", "magnitude", "wanda", "random")
"""A second-order, a first-order, a data-free and a gradient-free criterion, and the control."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Every scorer at every level with every seed and recovery. One that cannot be made cannot be built.

    Raises:
        SpecError: an unknown scorer, pattern, recovery or kind of structure, one that does not go with the pattern, a
            level outside [0, 1) or not the pattern's, no scorer, no level above 0, or fewer than one seed.
    """

    scorers: tuple[str, ...]
    levels: tuple[float, ...]
    """Sparsities; dense, 0, is always the reference and may be among them."""
    seeds: int = 3
    """So many draws of calibration rows, by the seeds 0, 1, ..."""
    pattern: Pattern = Pattern.STRUCTURED
    structures: Structures = Structures.HEADS
    """What the structured pattern removes."""
    recovers: tuple[Recover | None, ...] = (None,)
    """``None`` means the pattern's usual one."""

    def __post_init__(self) -> None:
        """Check and normalise: each name once, levels ascending."""
        if isinstance(self.seeds, bool) or not isinstance(self.seeds, int) or self.seeds < 1:
            raise SpecError(f"seeds must be a whole number of at least 1; got {self.seeds!r}")
        if not self.scorers:
            raise SpecError(f"no scorer to compare; name some of {', '.join(SCORERS)}")
        names = dict.fromkeys(scorer_named(name).name for name in self.scorers)
        known = scorers_for(self.pattern)
        for name in names:
            if name not in known:
                raise SpecError(
                    f"scorer {name!r} ranks whole heads and neurons; with pattern={str(self.pattern)!r} leave it out"
                )
        specs = [PruneSpec(sparsity=level, pattern=self.pattern) for level in self.levels]
        levels = sorted({spec.sparsity for spec in specs if spec.sparsity > 0.0})
        if not levels:
            raise SpecError(
                f"no level to compare at; got {list(self.levels)}: name sparsities above 0, such as 0.3,0.5,0.7"
            )
        if not self.recovers:
            raise SpecError("no recovery to compare; name some of none, reconstruct, sequential")
        first = {"sparsity": levels[0], "pattern": self.pattern, "structures": self.structures}
        ways = [PruneSpec.from_dict({**first, "recover": recover}) for recover in self.recovers]
        if any(way.recover is Recover.DISTILL for way in ways):
            raise SpecError(
                "recover='distill' trains for minutes, and nothing is trained here; use none, reconstruct or sequential"
            )
        object.__setattr__(self, "scorers", tuple(names))
        object.__setattr__(self, "levels", tuple(levels))
        object.__setattr__(self, "pattern", ways[0].pattern)
        object.__setattr__(self, "structures", ways[0].structures)
        object.__setattr__(self, "recovers", tuple(dict.fromkeys(way.recover for way in ways)))

    def specs_of(self, scorer: str) -> list[PruneSpec]:
        """Return the cuts by one scorer, least sparse first."""
        return [
            PruneSpec(sparsity=level, pattern=self.pattern, structures=self.structures, scorer=scorer, recover=recover)
            for level in self.levels
            for recover in self.recovers
        ]


def scorers_for(pattern: str) -> tuple[str, ...]:
    """Return the names of all scorers that rank what ``pattern`` removes."""
    structured = pattern == Pattern.STRUCTURED
    return tuple(name for name in SCORERS if structured or name not in STRUCTURES_ALONE)


def draw_size(rows: int) -> int:
    """Return how many of ``rows`` training rows one seed draws: 2,048, but never more than 80 % of them.

    So two seeds differ on small sets too.

    Raises:
        DataError: there are too few rows to draw any.
    """
    size = min(CALIBRATION_ROWS, rows * 4 // 5)
    if size == 0:
        raise DataError(f"{rows} training rows are too few to draw 80 % of them; give at least 2 with --train")
    return size
