"""What a cut is: the frozen request from which a variant is built."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Self, TypeVar

from pruning.errors import SpecError

E = TypeVar("E", bound=StrEnum)

TWO_FOUR_SPARSITY = 0.5
"""The share of weights that the 2:4 pattern removes: it has no other."""

IMPORTED = "imported"
"""Named in place of a scorer: nothing is scored, for the checkpoint came with the zeros of its cut."""

STRUCTURES_ALONE = frozenset({"obs"})
"""Scorers that rank whole heads and neurons, and have no score for a single weight."""

KEYS = ("sparsity", "pattern", "scorer", "recover", "precision", "scope", "structures", "rounds")

MOST_ROUNDS = 16


class Pattern(StrEnum):
    """Which weights may go together."""

    STRUCTURED = "structured"
    """Heads, neurons, or what ``Structures`` says: really smaller matrices."""
    UNSTRUCTURED = "unstructured"
    """Single weights: same shapes with zeros, no faster on dense kernels."""
    TWO_FOUR = "2:4"
    """Two of every four consecutive inputs of an output: same shapes with zeros, as sparse tensor cores want them."""


class Structures(StrEnum):
    """What the structured pattern removes."""

    HEADS = "heads+neurons"
    """Whole attention heads and FFN neurons."""
    UNITS = "heads+units+neurons"
    """The same, and dimensions inside heads: of the products of queries and keys, and of values and outputs."""
    SUBLAYERS = "sublayers"
    """The attention or the FFN of a layer as a whole: fewer kernels, in coarse pieces."""


class Scope(StrEnum):
    """Among what scores are compared: single weights, or heads and neurons; and by what, if not by weights."""

    GLOBAL = "global"
    """All prunable weights: a tensor keeps more or less than its share."""
    LAYERWISE = "layerwise"
    """Weights of one tensor, each of which keeps the same share; heads and neurons of one layer, each of which keeps
    the same numbers."""
    ROW = "row"
    """Those of one output of one tensor, each of which keeps the same share of its inputs."""
    LATENCY = "latency"
    """All heads and neurons, by what their going costs over the time that it saves on this machine."""


SCOPES = {
    Pattern.STRUCTURED: (Scope.LAYERWISE, Scope.LATENCY),
    Pattern.UNSTRUCTURED: (Scope.GLOBAL, Scope.LAYERWISE, Scope.ROW),
    Pattern.TWO_FOUR: (),
}
"""The scopes that go with each pattern. Without one, unstructured cuts have their scorer's, and structured ones take
more from a layer where it costs less for each weight."""


class Recover(StrEnum):
    """What is done to the kept weights after the cut."""

    NONE = "none"
    RECONSTRUCT = "reconstruct"
    """Least squares on the cached Gram matrices; no gradients, no labels."""
    SEQUENTIAL = "sequential"
    """Least squares matrix by matrix on the cut model's own inputs: a pass over the calibration rows for every cut."""
    DISTILL = "distill"
    """Trained against the dense model, from what sequential recovery leaves of a structured cut; takes minutes."""


class Precision(StrEnum):
    """The numbers in which a variant is held and computed."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    """Half the memory, on GPUs; rounds to 11 bits, but overflows beyond 65,504."""
    BFLOAT16 = "bfloat16"
    """Half the memory, and faster where the processor multiplies it; rounds to 8 bits."""
    INT8 = "int8"
    """The encoder's matrices as integers with scales from calibration rows, the rest float32; on CPUs with VNNI."""

    @property
    def only_on(self) -> str | None:
        """The one kind of device that answers in it, ``cpu`` or ``cuda``; None where every kind does.

        A CPU evaluates float16 too, if slowly: a model is cut where there is no GPU, and served where there is one.
        """
        return {Precision.INT8: "cpu", Precision.FLOAT16: "cuda"}.get(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneSpec:
    """One cut of one model. A value that cannot be valid cannot be built.

    Raises:
        SpecError: a sparsity outside [0, 1) or not the pattern's, a scorer that is no name or does not go with the
            pattern, an unknown pattern, recovery, precision, scope or structures, rounds that are no number from 1 to
            ``MOST_ROUNDS``, or two that exclude each other.
    """

    sparsity: float
    """Share of prunable encoder weights removed, in [0, 1)."""
    pattern: Pattern = Pattern.STRUCTURED
    scorer: str = "fisher"
    """Name of an importance scorer, a row of ``pruning.scores.SCORERS``; or ``imported``."""
    recover: Recover | None = None
    """``None`` means the usual one: reconstruct for structured cuts, none for unstructured and imported ones."""
    precision: Precision = Precision.FLOAT32
    scope: Scope | None = None
    """Among what scores are compared, one of ``SCOPES[pattern]``; ``None`` means the usual one."""
    structures: Structures = Structures.HEADS
    """What goes; others than heads and neurons for the structured pattern alone."""
    rounds: int = 1
    """The model is scored anew whenever another ``1 / rounds`` of its weights has gone; with 1 it never is."""

    def __post_init__(self) -> None:
        """Check and normalise."""
        number = self.sparsity
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise SpecError(f"sparsity must be a number in [0, 1); got {number!r}")
        if not 0.0 <= number < 1.0:
            raise SpecError(f"sparsity must lie in [0, 1), the share of encoder weights removed; got {number}")
        if not isinstance(self.scorer, str):
            raise SpecError(f"scorer must be a name, such as 'fisher'; got {self.scorer!r}")
        object.__setattr__(self, "sparsity", abs(float(number)))  # -0.0 would have a digest of its own
        object.__setattr__(self, "pattern", _member(Pattern, self.pattern, "pattern"))
        usual = Recover.NONE if self.zeros_stay else Recover.RECONSTRUCT
        recover = usual if self.recover is None else _member(Recover, self.recover, "recover")
        if self.scorer == IMPORTED and recover in (Recover.RECONSTRUCT, Recover.SEQUENTIAL):
            raise SpecError(
                f"recover={recover.value!r} makes up for a cut, and with scorer={IMPORTED!r} the checkpoint came with "
                "its own; use recover='none' or 'distill'"
            )
        object.__setattr__(self, "recover", recover)
        object.__setattr__(self, "precision", _member(Precision, self.precision, "precision"))
        if self.scope is not None:
            object.__setattr__(self, "scope", _member(Scope, self.scope, "scope"))
        usual_structures = Structures.HEADS if self.structures is None else self.structures
        object.__setattr__(self, "structures", _member(Structures, usual_structures, "structures"))
        if isinstance(self.rounds, bool) or not isinstance(self.rounds, int) or not 1 <= self.rounds <= MOST_ROUNDS:
            raise SpecError(f"rounds must be a whole number from 1 to {MOST_ROUNDS}; got {self.rounds!r}")
        self._check_pattern()

    def _check_pattern(self) -> None:
        if self.scope is not None and self.scope not in SCOPES[self.pattern]:
            others = [f"scope={scope.value!r}" for scope in SCOPES[self.pattern]]
            fits = Pattern.STRUCTURED if self.scope is Scope.LATENCY else Pattern.UNSTRUCTURED
            ways = ", or ".join(["leave it out", *others, f"pattern={fits.value!r}"])
            raise SpecError(f"scope={self.scope.value!r} does not go with pattern={self.pattern.value!r}: {ways}")
        if self.scope is not None and self.scorer == IMPORTED:
            raise SpecError(
                f"with scorer={IMPORTED!r} no weights compete; got scope={self.scope.value!r}: leave it out"
            )
        if self.structures is not Structures.HEADS and self.pattern is not Pattern.STRUCTURED:
            raise SpecError(
                f"structures={self.structures.value!r} says what goes as a whole; with pattern={self.pattern.value!r} "
                "leave it out, or use pattern='structured'"
            )
        if self.structures is not Structures.HEADS and (self.scope is not None or self.scorer == IMPORTED):
            other = f"scorer={IMPORTED!r}" if self.scope is None else f"scope={self.scope.value!r}"
            raise SpecError(
                f"{other} goes with whole heads and neurons; got structures={self.structures.value!r}: leave one of "
                f"the two out, or use structures={Structures.HEADS.value!r}"
            )
        if self.pattern is Pattern.TWO_FOUR and self.sparsity not in (0.0, TWO_FOUR_SPARSITY):
            raise SpecError(
                f"pattern='2:4' keeps exactly two of every four weights; got sparsity={self.sparsity}: use "
                f"{TWO_FOUR_SPARSITY}, or 0 for the dense model, or pattern='unstructured'"
            )
        if self.pattern is Pattern.TWO_FOUR and self.rounds > 1:
            raise SpecError(
                f"pattern='2:4' removes all that it removes at once, and rounds={self.rounds} needs steps; leave it "
                "out, or use pattern='unstructured'"
            )
        if self.structures is not Structures.HEADS and self.rounds > 1:
            raise SpecError(
                f"rounds={self.rounds} scores whole heads and neurons anew, and structures={self.structures.value!r} "
                f"go at once; leave one of the two out, or use structures={Structures.HEADS.value!r}"
            )
        if self.scorer in STRUCTURES_ALONE and self.pattern is not Pattern.STRUCTURED and self.sparsity > 0.0:
            raise SpecError(
                f"scorer {self.scorer!r} ranks whole heads and neurons; with pattern={self.pattern.value!r} use "
                "'fisher' or another scorer"
            )

    @property
    def zeros_stay(self) -> bool:
        """Whether zeros among the weights that are left belong to the cut, and training leaves them zeros."""
        return self.pattern is not Pattern.STRUCTURED or self.scorer == IMPORTED

    def before_training(self) -> Self:
        """Return the cut that distillation begins with: the best that its pattern has without training, in float32."""
        best = Recover.NONE if self.zeros_stay else Recover.SEQUENTIAL
        return replace(self, recover=best, precision=Precision.FLOAT32)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON and digests; scope, structures and rounds only where they are not the usual."""
        assert self.recover is not None  # set by __post_init__
        values: dict[str, Any] = {
            "sparsity": self.sparsity,
            "pattern": self.pattern.value,
            "scorer": self.scorer,
            "recover": self.recover.value,
            "precision": self.precision.value,
        }
        if self.scope is not None:
            values["scope"] = self.scope.value
        if self.structures is not Structures.HEADS:
            values["structures"] = self.structures.value
        return values if self.rounds == 1 else values | {"rounds": self.rounds}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild from ``as_dict``.

        Raises:
            SpecError: not a mapping, an unknown key, no sparsity, or a value that cannot be valid.
        """
        if not isinstance(values, Mapping):
            raise SpecError(f"a prune spec must be a mapping such as {{'sparsity': 0.5}}; got {values!r}")
        unknown = sorted(str(key) for key in values if key not in KEYS)
        if unknown:
            raise SpecError(f"unknown keys in a prune spec: {', '.join(unknown)}; known: {', '.join(KEYS)}")
        if "sparsity" not in values:
            raise SpecError("a prune spec needs a sparsity, the share of encoder weights removed, in [0, 1)")
        return cls(**values)


def precisions_of(words: str) -> tuple[Precision, ...]:
    """Return the precisions of a list such as ``float32,bfloat16``, each once, in its order.

    Raises:
        SpecError: an unknown precision, or none.
    """
    names = [word.strip() for word in words.split(",") if word.strip()]
    if not names:
        raise SpecError(f"no precision is named; known: {', '.join(Precision)}")
    return tuple(_member(Precision, name, "precision") for name in dict.fromkeys(names))


def way_of(cut: Mapping[str, Any]) -> str:
    """Return the name of how something was cut: all of a spec, or of a frontier row, but its sparsity."""
    parts = [cut["scorer"], cut["pattern"], cut["recover"]]
    if cut.get("scope") is not None:
        parts.append(cut["scope"])
    if cut.get("structures") not in (None, Structures.HEADS):
        parts.append(cut["structures"])
    if cut.get("rounds", 1) > 1:
        parts.append(f"{cut['rounds']} rounds")
    return ", ".join(parts if cut["precision"] == Precision.FLOAT32 else [*parts, cut["precision"]])


def _member(kind: type[E], value: object, field: str) -> E:
    try:
        return kind(str(value))
    except ValueError:
        known = ", ".join(member.value for member in kind)
        raise SpecError(f"unknown {field} {value!r}; known: {known}") from None
