"""What ``GET /info`` says: the text-embeddings-inference shape, and what only this service has to say."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from pruning.variants import Manifest
from service.engine import Live
from service.settings import Settings

MAX_CONCURRENT_REQUESTS = 8192
"""Requests that one replica holds at once: more than fill its queue of tokens, so that the queue is what refuses."""

VERSIONS = {name: version(name) for name in ("torch", "ray", "transformers")}
"""Of the libraries that figures depend on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What identifies the served model."""

    model_id: str
    digest: str
    version: str
    """Version of this program."""
    threads: int
    """Cores that the engine computes on."""


def info(card: ModelCard, live: Live, levels: Sequence[Manifest], settings: Settings) -> dict[str, Any]:
    """Return the body of ``GET /info``; ``levels`` are those that a request may ask for."""
    engine = live.engine
    manifest = engine.manifest
    return {
        "model_id": card.model_id,
        "model_sha": card.digest,
        "model_dtype": manifest.spec.precision,
        "served_model_name": card.model_id,
        "model_type": {
            "classifier": {
                "id2label": {str(index): label for index, label in enumerate(engine.labels)},
                "label2id": {label: index for index, label in enumerate(engine.labels)},
            }
        },
        "max_concurrent_requests": MAX_CONCURRENT_REQUESTS,
        "max_input_length": engine.max_length,
        "max_batch_tokens": settings.max_batch_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": settings.max_client_batch_size,
        "auto_truncate": True,
        "tokenization_workers": 1,
        "version": card.version,
        "sha": None,
        "docker_label": None,
        "sparsedial": {
            "generation": live.generation,
            "variant": manifest.variant_id,
            "sparsity": manifest.achieved_sparsity,
            "requested_sparsity": manifest.spec.sparsity,
            "pattern": manifest.spec.pattern,
            "scorer": manifest.spec.scorer,
            "recover": manifest.spec.recover,
            "precision": manifest.spec.precision,
            "accuracy": manifest.evaluation.accuracy,
            "levels": [
                {
                    "sparsity": level.spec.sparsity,
                    "precision": level.spec.precision,
                    "accuracy": level.evaluation.accuracy,
                }
                for level in levels
            ],
            "max_queue_tokens": settings.max_queue_tokens,
            "max_text_characters": settings.max_text_characters,
            "max_body_bytes": settings.max_body_bytes,
            "replicas": settings.replicas,
            "engine": engine.name,
            "engine_readings": None
            if engine.readings is None
            else {name: asdict(reading) for name, reading in engine.readings.items()},
            "device": str(engine.device),
            "threads": card.threads,
            "versions": VERSIONS,
        },
    }
