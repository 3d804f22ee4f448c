"""Texts to tokens, without holding up the event loop."""

import asyncio
import functools

from pruning.tokenization import Encoded, TextTokenizer
from service.schemas import Query
from service.text_limits import check_lengths, parts

INLINE_CHARACTERS = 4096
"""Characters that are tokenized on the event loop (about a millisecond); more go to a thread."""


async def tokenized(tokenizer: TextTokenizer, query: Query, max_length: int) -> list[Encoded]:
    """Return the tokens of every text, none longer than ``max_length``.

    Raises:
        Invalid: a text is longer, and the query wants none to be cut.
    """
    encode = functools.partial(
        tokenizer.encode, query.texts, max_length=max_length, truncate=query.truncate, direction=query.direction
    )
    characters = sum(len(part) for text in query.texts for part in parts(text))
    sequences = encode() if characters <= INLINE_CHARACTERS else await asyncio.to_thread(encode)
    check_lengths(sequences, max_length)
    return sequences
