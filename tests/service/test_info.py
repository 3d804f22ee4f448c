from dataclasses import replace
from pathlib import Path

import torch

from pruning.encoder import load_base_model
from service.engine import Live, Reading
from service.info import info
from service.settings import Settings
from tests.service.inference_parts import CARD, engine_of

TEI_FIELDS = [
    "model_id",
    "model_sha",
    "model_dtype",
    "served_model_name",
    "model_type",
    "max_concurrent_requests",
    "max_input_length",
    "max_batch_tokens",
    "max_batch_requests",
    "max_client_batch_size",
    "auto_truncate",
    "tokenization_workers",
    "version",
    "sha",
    "docker_label",
]


def test_the_shape_is_that_of_text_embeddings_inference_and_one_object_more(tiny_model_dir: Path) -> None:
    engine = engine_of(load_base_model(tiny_model_dir), "a" * 16, 0.5)
    body = info(CARD, Live(7, engine), [], Settings(max_batch_tokens=512, replicas=3))
    assert sorted(body) == sorted([*TEI_FIELDS, "sparsedial"])
    assert body["model_type"]["classifier"] == {
        "id2label": {"0": "negative", "1": "positive"},
        "label2id": {"negative": 0, "positive": 1},
    }
    assert (body["max_input_length"], body["max_batch_tokens"]) == (48, 512)
    assert body["sparsedial"]["generation"] == 7
    assert body["sparsedial"]["variant"] == "a" * 16
    assert (body["sparsedial"]["requested_sparsity"], body["sparsedial"]["sparsity"]) == (0.5, 0.5)
    assert (body["sparsedial"]["replicas"], body["sparsedial"]["device"]) == (3, "cpu")
    assert (body["sparsedial"]["engine"], body["sparsedial"]["engine_readings"]) == ("torch", None)
    assert body["sparsedial"]["versions"]["torch"] == torch.__version__


def test_what_the_choice_of_the_engine_was_made_by_is_said(tiny_model_dir: Path) -> None:
    readings = {"torch": Reading(single_ms=1.0, batch_ms=9.0), "openvino": Reading(single_ms=2.0, batch_ms=8.5)}
    engine = replace(engine_of(load_base_model(tiny_model_dir)), readings=readings)
    assert info(CARD, Live(7, engine), [], Settings())["sparsedial"]["engine_readings"] == {
        "torch": {"single_ms": 1.0, "batch_ms": 9.0},
        "openvino": {"single_ms": 2.0, "batch_ms": 8.5},
    }
