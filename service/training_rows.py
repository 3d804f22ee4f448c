"""The rows that a training is given."""

from pathlib import Path

from pruning.data import LabelledSet
from pruning.encoder import BaseModel
from pruning.errors import DataError
from pruning.material import labelled_rows


def training_rows(base: BaseModel, rows: Path, evaluation: Path) -> LabelledSet:
    """Return all rows of a file, encoded: a workbench holds no more of them than score the model.

    Raises:
        DataError: the file cannot be used, or is that of the evaluation rows.
    """
    if rows.resolve() == evaluation.resolve():
        raise DataError(f"--rows and --eval are the same file, {rows}; judge a model on rows that did not train it")
    return labelled_rows(base, rows)
