"""The rows that a training is given: those of a file, or those that score the model."""

from pathlib import Path

from pruning.data import LabelledSet
from pruning.errors import DataError
from pruning.tasks import TASKS
from pruning.tokenization import TextTokenizer
from pruning.workbench import Workbench


def training_rows(bench: Workbench, rows: Path | None, evaluation: Path | None) -> LabelledSet:
    """Return the rows of a file, encoded, or those that score the model.

    Raises:
        DataError: the file cannot be used, or is that of the evaluation rows.
    """
    if rows is None:
        return bench.train
    if evaluation is not None and rows.resolve() == evaluation.resolve():
        raise DataError(f"--rows and --eval are the same file, {rows}; judge a model on rows that did not train it")
    tokenizer = TextTokenizer.load(bench.base.path)
    task = TASKS[bench.base.shape.head]
    return task.load(rows, bench.base.labels, tokenizer, min(task.max_tokens, bench.base.max_length))
