"""What a variant is worth: its task's primary metric with an interval, and agreement with the dense model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from torch import Tensor

from pruning.data import LabelledSet
from pruning.errors import SpecError
from pruning.metrics import Metric
from pruning.tasks import TASKS


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Measured on labelled rows that took no part in scoring."""

    metric: Metric
    """The primary metric of the rows' task, with its 95 % interval."""
    agreement: float
    """How far the answers are the dense model's: for labels, the share of rows with the same one."""
    rows: int
    others: Mapping[str, float] = field(default_factory=dict)
    """The task's other metrics by name."""
    rows_digest: str = ""
    """Which rows: figures on other rows are not comparable."""
    screened: bool = False
    """Whether ``screened_logits`` answered the rows in place of ``predict_logits``; see ``pruning.prediction``."""

    @property
    def accuracy(self) -> float:
        """Correct / total.

        Raises:
            SpecError: the task is not judged by accuracy; ``accuracy_low`` and ``accuracy_high`` raise it too.
        """
        return self._accuracy.value

    @property
    def accuracy_low(self) -> float:
        """Lower end of the 95 % Wilson score interval."""
        return self._accuracy.low

    @property
    def accuracy_high(self) -> float:
        """Upper end of it."""
        return self._accuracy.high

    @property
    def _accuracy(self) -> Metric:
        if self.metric.name != "accuracy":
            raise SpecError(f"the model is judged by {self.metric.name}, and has no accuracy; read its 'metric'")
        return self.metric

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild from ``dataclasses.asdict``."""
        return cls(**{**values, "metric": Metric(**values["metric"])})


def evaluate(outputs: Tensor, reference: Tensor, rows: LabelledSet) -> Evaluation:
    """Return the worth of a model's ``outputs`` on ``rows``, beside the dense model's outputs ``reference``.

    Both are [n, labels], or of a head that reads every token [T, labels], sequence after sequence.
    """
    judgement = TASKS[rows.head].judge(outputs, reference, rows)
    return Evaluation(
        metric=judgement.metric,
        agreement=judgement.agreement,
        rows=len(rows),
        others=judgement.others,
        rows_digest=rows.digest,
    )
