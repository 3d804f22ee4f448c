"""One cut, judged; and the folder that keeps such results, a small JSON document each.

<root>/comparisons/<digest of all that the result depends on>.json
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from pruning.checked_json import read_checked_json, with_checksum
from pruning.comparison.kept import Part
from pruning.comparison.training import Training
from pruning.errors import StoreError
from pruning.evaluation import Evaluation
from pruning.files import digest_of, write_json
from pruning.identity import cut_id, identify
from pruning.spec import PruneSpec, Recover
from pruning.workbench import Workbench

FORMAT = 1
"""Raised whenever a cell holds something else; part of its name."""
REMEDY = "delete it, and the next comparison makes it again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Worth:
    """How good a model is on the evaluation rows."""

    metric: str
    value: float
    low: float
    """Lower end of the 95 % interval of the rows."""
    high: float
    """Upper end of it."""
    agreement: float
    """How far the answers are the dense model's: for labels, the share of rows with the same one."""
    rows: int

    @classmethod
    def of(cls, evaluation: Evaluation) -> Self:
        """Return what a comparison needs of an evaluation: its task's primary metric."""
        return cls(
            metric=evaluation.metric.name,
            value=evaluation.metric.value,
            low=evaluation.metric.low,
            high=evaluation.metric.high,
            agreement=evaluation.agreement,
            rows=evaluation.rows,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What one cut by one scorer with one draw of calibration rows is worth, and what it keeps."""

    spec: PruneSpec
    seed: int
    achieved_sparsity: float
    macs: int
    """Multiply-accumulates of one text, at ``pruning.cost.MACS_LENGTH`` tokens."""
    worth: Worth
    kept: tuple[Part, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "spec": self.spec.as_dict(),
            "seed": self.seed,
            "achieved_sparsity": self.achieved_sparsity,
            "macs": self.macs,
            "worth": asdict(self.worth),
            "kept": [part.as_dict() for part in self.kept],
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Rebuild from ``as_dict``."""
        return cls(
            **values
            | {
                "spec": PruneSpec.from_dict(values["spec"]),
                "worth": Worth(**values["worth"]),
                "kept": tuple(Part.from_dict(part) for part in values["kept"]),
            }
        )


def cell_name(bench: Workbench, spec: PruneSpec, training: Training | None) -> str:
    """Return the name of a cell's document: a digest of all that the result depends on."""
    if spec.recover is not Recover.DISTILL:
        return digest_of({"variant": identify(bench, spec), "format": FORMAT})[:16]
    assert training is not None  # a comparison that distills says how
    trained = {"cut": cut_id(bench, spec), "training": training.digest, "evaluation": bench.evaluation.digest}
    return digest_of(trained | {"format": FORMAT})[:16]


class CellStore:
    """Cells under one root folder."""

    def __init__(self, root: Path) -> None:
        """Use ``root``; it is made when the first cell is written."""
        self.folder = root / "comparisons"

    def find(self, name: str) -> Cell | None:
        """Return the cell of that name, or None where there is none yet.

        Raises:
            StoreError: its file was altered.
        """
        path = self.folder / f"{name}.json"
        if not path.is_file():
            return None
        return Cell.from_dict(read_checked_json(path, "cell", dict, StoreError, REMEDY))

    def put(self, name: str, cell: Cell) -> None:
        """Write a cell in one step.

        Raises:
            StoreError: it cannot be written.
        """
        path = self.folder / f"{name}.json"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(path, with_checksum("cell", cell.as_dict()))
        except OSError as error:
            raise StoreError(
                f"{path} could not be written: {error}; free space or choose a writable --store"
            ) from error
