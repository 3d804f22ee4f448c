"""Limits on the texts of a request, checked before anything is computed."""

from collections.abc import Sequence

from pruning.tokenization import Encoded, Text
from service.errors import Invalid, TooLarge
from service.settings import Settings


def parts(text: Text) -> tuple[str, ...]:
    """Return the one string of a text, or the two of a pair."""
    return (text,) if isinstance(text, str) else text


def check_texts(texts: Sequence[Text], settings: Settings) -> None:
    """Return if the texts may be tokenized.

    Raises:
        TooLarge: too many texts, or one of too many characters.
        Invalid: a text is empty, or is not Unicode.
    """
    if len(texts) > settings.max_client_batch_size:
        raise TooLarge(
            f"The request has {len(texts)} texts; the limit is {settings.max_client_batch_size}. "
            "Send them in several requests.",
            texts=len(texts),
            limit_texts=settings.max_client_batch_size,
        )
    for index, text in enumerate(texts):
        for part in parts(text):
            _check_part(index, part, settings.max_text_characters)


def _check_part(index: int, part: str, max_characters: int) -> None:
    if not part:
        raise Invalid(f"Text {index} is empty; send at least one character.", index=index)
    if len(part) > max_characters:
        raise TooLarge(
            f"Text {index} has {len(part)} characters; the limit is {max_characters}.",
            index=index,
            characters=len(part),
            limit_characters=max_characters,
        )
    try:
        part.encode()
    except UnicodeEncodeError as error:
        raise Invalid(
            f"Text {index} holds half of a surrogate pair at character {error.start}; send Unicode text.", index=index
        ) from error


def check_lengths(sequences: Sequence[Encoded], max_length: int) -> None:
    """Return if the model can read every sequence whole.

    Raises:
        Invalid: one is longer than ``max_length`` tokens.
    """
    for index, sequence in enumerate(sequences):
        if len(sequence.ids) > max_length:
            raise Invalid(
                f"Text {index} has {len(sequence.ids)} tokens; the model reads at most {max_length}. "
                "Shorten it, or allow truncation.",
                index=index,
                tokens=len(sequence.ids),
                limit_tokens=max_length,
            )
