"""The transformers pipeline behind FastAPI, as most begin: a request at a time, its texts as one batch."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

import torch
from application import Answers, serve
from transformers import pipeline

MAX_TEXTS = 32


def main() -> None:
    """Serve the checkpoint."""
    classifier = pipeline("text-classification", model=os.environ["PEER_MODEL"], dtype=torch.float32, device="cpu")
    # One thread: tokenizer and pipeline are not made to be called from several at once.
    thread = ThreadPoolExecutor(1)

    def compute(texts: list[str]) -> Answers:
        return list(classifier(texts, batch_size=MAX_TEXTS, truncation=True, max_length=512))

    async def classify(texts: list[str]) -> Answers:
        return await asyncio.get_running_loop().run_in_executor(thread, compute, texts)

    serve(classify)


if __name__ == "__main__":
    main()
