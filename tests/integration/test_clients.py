"""Clients of other people, unchanged."""

import pytest
from huggingface_hub import InferenceClient

from tests.integration.conftest import LiveService

pytestmark = pytest.mark.ray


def test_the_hugging_face_client_classifies(live_service: LiveService) -> None:
    best, other = InferenceClient(model=live_service.url).text_classification("a good film")
    assert (best.label, other.label) == ("positive", "negative")
    assert best.score > 0.5 and best.score + other.score == pytest.approx(1, abs=1e-5)


def test_the_hugging_face_client_limits_the_labels(live_service: LiveService) -> None:
    [best] = InferenceClient(model=live_service.url).text_classification("a bad film", top_k=1)
    assert best.label == "negative"
