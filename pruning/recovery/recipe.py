"""All that a training run depends on, beside the cut that it begins with and its rows."""

import math
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from pruning.errors import SpecError
from pruning.files import digest_of

RECIPE_VERSION = 2
"""Raised whenever the same recipe trains otherwise."""
THINNING_VERSION = 2
"""Raised whenever the same recipe cuts otherwise along the way."""


class Criterion(StrEnum):
    """By what weights go while the student trains."""

    MASK_GRADIENT = "mask_gradient"
    """Gradients of masks on heads and neurons; these alone."""
    GRAIN = "grain"
    """Products of weight and gradient, averaged far back; heads by units inside them."""
    SEVEN_DYNAMIC = "seven_dynamic"
    """Products of weight and gradient, summed, less where gradients are noisy."""
    PLATON = "platon"
    """Products of weight and gradient, more where they vary; single weights may come back."""
    MAGNITUDE = "magnitude"
    """Sizes of weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a cut is trained. The usual values were chosen on held-out rows of SST-2's training set.

    No dropout: what the student learns from, the dense model's answers and hidden states, is the regulariser, and noise
    in the student would be an error that it cannot learn away (a run sees each row a few times at most). So nothing
    is random but the order of the rows, which ``seed`` and the step give.

    Raises:
        SpecError: a value that cannot train; it is named.
    """

    steps: int | None = None
    """Optimizer steps; None: as many as the minutes allow."""
    minutes: float | None = None
    """Minutes of training; None: as many as the steps take. Whichever bound is nearer ends the run, and the learning
    rate has fallen to zero by then. Only a run that steps alone bound is the same every time."""
    batch_rows: int = 32
    learning_rate: float = 2e-4
    """Highest one, reached after ``warm_up``."""
    warm_up: float = 0.1
    """Share of the run in which the learning rate rises."""
    weight_decay: float = 0.01
    """Of matrices alone, decoupled (AdamW; Loshchilov and Hutter, 2019)."""
    temperature: float = 2.0
    """T by which both models' logits are divided for the soft labels."""
    hidden_weight: float = 1.0
    """Weight of the hidden states' error beside that of the answers."""
    label_weight: float = 0.0
    """Share of the rows' own labels in the error of the answers, in [0, 1]; the rest is the dense model's."""
    held_out_rows: int = 2048
    """Rows that are not trained on but scored while the run goes, at most a tenth of all."""
    check_every: int = 100
    """Steps between two scores of the held-out rows; a checkpoint is written each time."""
    patience: int = 10
    """Scores without a gain, once the learning rate falls, after which the run stops early."""
    gradual: float = 0.0
    """Share of the run at which all is gone that goes bit by bit; 0: all at once before it."""
    gradual_from: float = 0.0
    """Share of the run at which it begins to go, less than ``gradual``."""
    criterion: Criterion = Criterion.MASK_GRADIENT
    """By what it goes. Other than the usual one only where something goes bit by bit."""
    cut_every: int = 25
    """Steps between two of these cuts."""
    quantized: bool = False
    """Whether weights and inputs are rounded meanwhile as int8 serves them."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every value."""
        if self.steps is None and self.minutes is None:
            raise SpecError("a recovery needs an end: give steps, minutes or both")
        for name in ("steps", "batch_rows", "held_out_rows", "check_every", "patience", "cut_every"):
            number = getattr(self, name)
            whole = isinstance(number, int) and not isinstance(number, bool) and number >= 1
            if not whole and not (name == "steps" and number is None):
                raise SpecError(f"{name} must be a whole number of at least 1; got {number!r}")
        for name in ("minutes", "learning_rate", "temperature"):
            number = getattr(self, name)
            if not (name == "minutes" and number is None) and not _in_range(number, above=0.0):
                raise SpecError(f"{name} must be a number above 0; got {number!r}")
        for name in ("weight_decay", "hidden_weight"):
            if not _in_range(getattr(self, name), least=0.0):
                raise SpecError(f"{name} must be a number of at least 0; got {getattr(self, name)!r}")
        for name in ("warm_up", "label_weight", "gradual", "gradual_from"):
            if not _in_range(getattr(self, name), least=0.0, most=1.0):
                raise SpecError(f"{name} must be a share in [0, 1]; got {getattr(self, name)!r}")
        self._check_thinning()

    def _check_thinning(self) -> None:
        object.__setattr__(self, "criterion", criterion_named(self.criterion))
        if not self.gradual and (self.gradual_from or self.criterion is not Criterion.MASK_GRADIENT):
            raise SpecError("criterion and gradual_from say how weights go bit by bit: give gradual above 0 too")
        if self.gradual and self.gradual_from >= self.gradual:
            raise SpecError(f"gradual_from must be less than gradual, {self.gradual}; got {self.gradual_from!r}")
        if self.gradual and self.quantized:
            raise SpecError(
                f"ranges of integers are read off the cut once, before the training; got gradual={self.gradual:g}: "
                "use gradual=0, or train in float32 first"
            )

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON and digests; of what is not done, nothing is said."""
        values = asdict(self) | {"version": RECIPE_VERSION}
        if not self.quantized:
            del values["quantized"]
        if self.gradual:
            return values | {"criterion": self.criterion.value, "thinning_version": THINNING_VERSION}
        del values["criterion"], values["gradual_from"]
        return values

    def digest_with(self, rows: str) -> str:
        """Return 16 hex digits of the recipe together with the digest of its training rows."""
        return digest_of(self.as_dict() | {"rows": rows})[:16]


def criterion_named(name: str) -> Criterion:
    """Return a criterion by name.

    Raises:
        SpecError: there is none of that name.
    """
    try:
        return Criterion(name)
    except ValueError:
        raise SpecError(f"unknown criterion {name!r}; known: {', '.join(Criterion)}") from None


def _in_range(number: object, *, least: float = -math.inf, above: float = -math.inf, most: float = math.inf) -> bool:
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
        return False
    return least <= number <= most and number > above
