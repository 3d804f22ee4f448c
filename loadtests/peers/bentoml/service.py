"""BentoML with its adaptive batching: texts of several requests in one call, the batch as long as it judges best."""

import bentoml
from classifier import Classifier


@bentoml.service(workers=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Sentiment:
    """One worker that classifies."""

    def __init__(self) -> None:
        """Load the checkpoint."""
        self._classify = Classifier()

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=60_000, route="/classify")
    def classify(self, texts: list[str]) -> list[dict]:
        """Return one answer for each text."""
        return self._classify(texts)
