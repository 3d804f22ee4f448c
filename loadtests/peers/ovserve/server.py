"""OpenVINO in bfloat16 behind FastAPI and a small micro-batcher; no torch in the process."""

import os
from pathlib import Path

import openvino
from application import Answers, serve
from encoding import Encoding
from micro_batcher import MicroBatcher


def main() -> None:
    """Serve the prepared model."""
    encoding = Encoding(Path(os.environ["PEER_MODEL"]), max_tokens=512)
    model = openvino.Core().compile_model(
        Path(os.environ["PEER_PREPARED"]) / "model.xml",
        "CPU",
        {"INFERENCE_PRECISION_HINT": "bf16", "PERFORMANCE_HINT": "LATENCY"},
    )

    def compute(texts: list[str]) -> Answers:
        ids, mask = encoding.ids_and_mask(texts)
        return encoding.answers(model([ids, mask])[0])

    serve(MicroBatcher(compute))


if __name__ == "__main__":
    main()
