"""What a model answers: the heads that may stand on an encoder."""

from enum import StrEnum


class Head(StrEnum):
    """A kind of head, by Hugging Face's name of its task."""

    LABEL = "text-classification"
    """One of several labels for a text, or for a pair of texts."""
    SCORE = "regression"
    """One number for a text, or for a pair of texts."""
    TAGS = "token-classification"
    """A label for every token."""
    SPAN = "question-answering"
    """Where in a text the answer to a question begins and ends: two numbers for every token."""

    @property
    def pooled(self) -> bool:
        """Whether it reads the first token alone, through a matrix of its own. Others read every token directly."""
        return self in (Head.LABEL, Head.SCORE)
