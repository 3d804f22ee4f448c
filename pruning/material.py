"""A model and its labelled rows, read once: any number of calibrations may be drawn from them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pruning.data import LabelledSet
from pruning.encoder import BaseModel, load_base_model
from pruning.errors import ModelError
from pruning.tasks import TASKS
from pruning.tokenization import TextTokenizer


@dataclass(frozen=True, slots=True)
class Material:
    """A base model with all its rows, encoded, in the order of their files."""

    base: BaseModel
    train: LabelledSet
    """Rows that may score the model."""
    evaluation: LabelledSet
    """Rows that judge its cuts."""

    @classmethod
    def load(cls, model: Path, train: Path, evaluation: Path) -> Self:
        """Read a model directory and two files of labelled rows.

        Raises:
            ModelError: the model cannot be loaded, or its tokenizer is of a larger vocabulary.
            DataError: the rows cannot be used, or are for another head than the model's.
        """
        base = load_base_model(model)
        return cls(base, labelled_rows(base, train), labelled_rows(base, evaluation))


def labelled_rows(base: BaseModel, path: Path) -> LabelledSet:
    """Return all rows of a file, encoded, in its order.

    Raises:
        ModelError: the tokenizer is missing, or is of a larger vocabulary.
        DataError: the rows cannot be used, or are for another head than the model's.
    """
    task = TASKS[base.shape.head]
    return task.load(path, base.labels, tokenizer_of(base), min(task.max_tokens, base.max_length))


def tokenizer_of(base: BaseModel) -> TextTokenizer:
    """Return the tokenizer of a model.

    Raises:
        ModelError: there is none, or it is of a larger vocabulary.
    """
    tokenizer = TextTokenizer.load(base.path)
    if tokenizer.largest_id() >= base.shape.vocabulary:
        raise ModelError(
            f"the tokenizer of {base.path} gives ids up to {tokenizer.largest_id()}, the model has vocab_size "
            f"{base.shape.vocabulary} and so knows ids up to {base.shape.vocabulary - 1}; "
            "put the tokenizer.json there that the model was trained with"
        )
    return tokenizer
