"""DeepSparse behind FastAPI and a small micro-batcher.

The engine is compiled for fixed shapes: here for 1, 8 and 32 texts and for lengths that double from 32 to 256 tokens.
A smaller batch is filled up. Short shapes are compiled at the start, long ones at their first use.
"""

import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from application import Answers, serve
from deepsparse import Engine
from encoding import Encoding
from micro_batcher import MAX_TEXTS, MicroBatcher

BATCHES = (1, 8, MAX_TEXTS)
LENGTHS = (32, 64, 128, 256)
MODEL = Path(os.environ["PEER_PREPARED"]) / "model.onnx"


@cache
def engine(texts: int, tokens: int) -> Engine:
    """Return the engine for one shape."""
    # It writes the shapes into the file that it is given.
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copy(MODEL, folder)
        return Engine(copy, batch_size=texts, input_shapes=[[texts, tokens]] * 2)


def smallest(sizes: tuple[int, ...], needed: int) -> int:
    """Return the first of ascending ``sizes`` that holds ``needed``."""
    return next(size for size in sizes if size >= needed)


def main() -> None:
    """Serve the prepared model."""
    encoding = Encoding(Path(os.environ["PEER_MODEL"]), max_tokens=LENGTHS[-1])

    def logits(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        count, tokens = len(ids), smallest(LENGTHS, ids.shape[1])
        texts = smallest(BATCHES, count)
        room = ((0, texts - count), (0, tokens - ids.shape[1]))
        # Rows that only fill up attend to one token: a softmax over none is not defined.
        padded = np.pad(mask, room)
        padded[count:, 0] = 1
        return engine(texts, tokens).run([np.pad(ids, room), padded])[0][:count]

    def compute(texts: list[str]) -> Answers:
        ids, mask = encoding.ids_and_mask(texts)
        parts = range(0, len(texts), MAX_TEXTS)
        return encoding.answers(
            np.concatenate([logits(ids[start : start + MAX_TEXTS], mask[start : start + MAX_TEXTS]) for start in parts])
        )

    for texts in BATCHES:
        engine(texts, LENGTHS[0])
        engine(texts, LENGTHS[1])
    serve(MicroBatcher(compute))


if __name__ == "__main__":
    main()
