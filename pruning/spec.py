"""What a cut is: the frozen request from which a variant is built."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self, TypeVar

from pruning.errors import SpecError

E = TypeVar("E", bound=StrEnum)

KEYS = ("sparsity", "pattern", "scorer", "recover", "precision")


class Pattern(StrEnum):
    """Which weights may go together."""

    STRUCTURED = "structured"
    """Whole attention heads and FFN neurons: really smaller matrices."""
    UNSTRUCTURED = "unstructured"
    """Single weights: same shapes with zeros, no faster on dense kernels."""


class Recover(StrEnum):
    """What is done to the kept weights after the cut."""

    NONE = "none"
    RECONSTRUCT = "reconstruct"
    """Least squares on the cached Gram matrices; no gradients, no data."""
    SEQUENTIAL = "sequential"
    """Least squares matrix by matrix on the cut model's own inputs: a pass over the calibration rows for every cut."""


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
        SpecError: a sparsity outside [0, 1), a scorer that is no name, an unknown pattern, recovery or precision, or
            two that exclude each other.
    """

    sparsity: float
    """Share of prunable encoder weights removed, in [0, 1)."""
    pattern: Pattern = Pattern.STRUCTURED
    scorer: str = "fisher"
    """Name of an importance scorer: a row of ``pruning.scores.SCORERS``."""
    recover: Recover | None = None
    """``None`` means the pattern's usual one: reconstruct for structured, none for unstructured."""
    precision: Precision = Precision.FLOAT32

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
        usual = Recover.RECONSTRUCT if self.pattern is Pattern.STRUCTURED else Recover.NONE
        recover = usual if self.recover is None else _member(Recover, self.recover, "recover")
        if self.pattern is Pattern.UNSTRUCTURED and recover is not Recover.NONE:
            raise SpecError(
                f"recover={recover.value!r} works on whole heads and neurons; with pattern='unstructured' use "
                "recover='none'"
            )
        object.__setattr__(self, "recover", recover)
        object.__setattr__(self, "precision", _member(Precision, self.precision, "precision"))

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON and digests."""
        assert self.recover is not None  # set by __post_init__
        return {
            "sparsity": self.sparsity,
            "pattern": self.pattern.value,
            "scorer": self.scorer,
            "recover": self.recover.value,
            "precision": self.precision.value,
        }

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


def way_of(cut: Mapping[str, Any]) -> str:
    """Return the name of how something was cut: all of a spec, or of a frontier row, but its sparsity."""
    parts = [cut["scorer"], cut["pattern"], cut["recover"]]
    return ", ".join(parts if cut["precision"] == Precision.FLOAT32 else [*parts, cut["precision"]])


def _member(kind: type[E], value: object, field: str) -> E:
    try:
        return kind(str(value))
    except ValueError:
        known = ", ".join(member.value for member in kind)
        raise SpecError(f"unknown {field} {value!r}; known: {known}") from None
