"""What is compared with what."""

from dataclasses import dataclass, replace

from pruning.errors import DataError, SpecError
from pruning.recovery.recipe import Recipe
from pruning.scores import SCORERS, scorer_named
from pruning.spec import STRUCTURES_ALONE, Pattern, PruneSpec, Recover, Scope, Structures
from pruning.workbench import CALIBRATION_ROWS

USUAL_SCORERS = ("fisher", "taylor", "magnitude", "wanda", "random")
"""A second-order, a first-order, a data-free and a gradient-free criterion, and the control."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Every scorer at every level with every seed and recovery. One that cannot be made cannot be built.

    Raises:
        SpecError: an unknown scorer, pattern, scope, recovery or kind of structure, one that does not go with the
            pattern, a level outside [0, 1) or not the pattern's, no scorer, no level above 0, fewer than one seed or
            row, or distillation without a recipe.
    """

    scorers: tuple[str, ...]
    levels: tuple[float, ...]
    """Sparsities; dense, 0, is always the reference and may be among them."""
    seeds: int = 3
    """So many draws of calibration rows, by the seeds 0, 1, ..."""
    rows: int = CALIBRATION_ROWS
    """Calibration rows of each draw, at most."""
    pattern: Pattern = Pattern.STRUCTURED
    structures: Structures = Structures.HEADS
    """What the structured pattern removes."""
    recovers: tuple[Recover | None, ...] = (None,)
    """``None`` means the pattern's usual one."""
    scope: Scope | None = None
    """``None`` means each scorer's usual one."""
    recipe: Recipe | None = None
    """How cuts are distilled, if they are; each draw trains with its own seed."""

    def __post_init__(self) -> None:
        """Check and normalise: each name once, levels ascending."""
        for name in ("seeds", "rows"):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise SpecError(f"{name} must be a whole number of at least 1; got {number!r}")
        if not self.scorers:
            raise SpecError(f"no scorer to compare; name some of {', '.join(SCORERS)}")
        names = dict.fromkeys(scorer_named(name).name for name in self.scorers)
        known = scorers_for(self.pattern)
        for name in names:
            if name not in known:
                raise SpecError(
                    f"scorer {name!r} ranks whole heads and neurons; with pattern={str(self.pattern)!r} leave it out"
                )
        specs = [PruneSpec(sparsity=level, pattern=self.pattern, scope=self.scope) for level in self.levels]
        levels = sorted({spec.sparsity for spec in specs if spec.sparsity > 0.0})
        if not levels:
            raise SpecError(
                f"no level to compare at; got {list(self.levels)}: name sparsities above 0, such as 0.3,0.5,0.7"
            )
        if not self.recovers:
            raise SpecError("no recovery to compare; name some of none, reconstruct, sequential, distill")
        first = {"sparsity": levels[0], "pattern": self.pattern, "structures": self.structures, "scope": self.scope}
        ways = [PruneSpec.from_dict({**first, "recover": recover}) for recover in self.recovers]
        if any(way.recover is Recover.DISTILL for way in ways) != (self.recipe is not None):
            raise SpecError(
                "recover='distill' needs a recipe, and nothing else takes one: give the steps of each training "
                "(--steps, such as 300) with 'distill' and only with it"
            )
        object.__setattr__(self, "scorers", tuple(names))
        object.__setattr__(self, "levels", tuple(levels))
        object.__setattr__(self, "pattern", ways[0].pattern)
        object.__setattr__(self, "structures", ways[0].structures)
        object.__setattr__(self, "scope", specs[0].scope)
        object.__setattr__(self, "recovers", tuple(dict.fromkeys(way.recover for way in ways)))

    def specs_of(self, scorer: str) -> list[PruneSpec]:
        """Return the cuts by one scorer, least sparse first."""
        return [
            PruneSpec(
                sparsity=level,
                pattern=self.pattern,
                structures=self.structures,
                scorer=scorer,
                recover=recover,
                scope=self.scope,
            )
            for level in self.levels
            for recover in self.recovers
        ]

    def recipe_of(self, seed: int) -> Recipe | None:
        """Return how the cuts of one draw are distilled: None if they are not."""
        return None if self.recipe is None else replace(self.recipe, seed=seed)


def scorers_for(pattern: str) -> tuple[str, ...]:
    """Return the names of all scorers that rank what ``pattern`` removes."""
    structured = pattern == Pattern.STRUCTURED
    return tuple(name for name in SCORERS if structured or name not in STRUCTURES_ALONE)


def draw_size(available: int, wanted: int) -> int:
    """Return how many of the ``available`` training rows one seed draws: as ``wanted``, but never more than 80 %.

    So two seeds differ on small sets too.

    Raises:
        DataError: there are too few rows to draw any.
    """
    size = min(wanted, available * 4 // 5)
    if size == 0:
        raise DataError(f"{available} training rows are too few to draw 80 % of them; give at least 2 with --train")
    return size
