"""The texts that a load sends: sentences of our own, from one word to sixty, or the lines of a file."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

from loadtests.errors import LoadTestError

SENTENCES = Path(__file__).with_name("sentences.txt")


def load_texts(path: Path | None) -> Sequence[str]:
    """Return the lines of ``path`` that are not blank; of our own sentences without a path.

    Raises:
        LoadTestError: the file cannot be read as UTF-8 or has no text.
    """
    path = path or SENTENCES
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise LoadTestError(f"cannot read texts from {path}: {error}") from error
    texts = [line for line in lines if line]
    if not texts:
        raise LoadTestError(f"{path} has no text; give one per line")
    return texts


def request_bodies(texts: Sequence[str], *, seed: int) -> list[bytes]:
    """Return one encoded ``/predict`` body per text, in an order drawn from ``seed``."""
    order = list(texts)
    random.Random(seed).shuffle(order)
    return [json.dumps({"inputs": text}).encode() for text in order]
