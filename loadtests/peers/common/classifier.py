"""The checkpoint as servers on torch run it: float32, cut to the model's positions, padded to the batch's longest."""

import os

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

MODEL = os.environ["PEER_MODEL"]


class Classifier:
    """A callable from texts to the best label of each with its score."""

    def __init__(self, folder: str = MODEL) -> None:
        """Load tokenizer and weights; they are stored in half precision, which torch's CPU kernels are slow in."""
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
        self._model = model.eval()

    def __call__(self, texts: list[str]) -> list[dict[str, str | float]]:
        """Return one label and score for each text."""
        batch = self._tokenizer(texts, truncation=True, max_length=512, padding=True, return_tensors="pt")
        with torch.inference_mode():
            scores, places = self._model(**batch).logits.softmax(-1).max(-1)
        names = self._model.config.id2label
        return [
            {"label": names[place], "score": score}
            for place, score in zip(places.tolist(), scores.tolist(), strict=True)
        ]
