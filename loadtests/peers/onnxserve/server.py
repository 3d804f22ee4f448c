"""ONNX Runtime behind FastAPI and a small micro-batcher; no torch in the process."""

import os
from pathlib import Path

import onnxruntime
from application import Answers, serve
from encoding import Encoding
from micro_batcher import MicroBatcher


def main() -> None:
    """Serve the prepared model."""
    encoding = Encoding(Path(os.environ["PEER_MODEL"]), max_tokens=512)
    session = onnxruntime.InferenceSession(
        Path(os.environ["PEER_PREPARED"]) / "model.onnx", providers=["CPUExecutionProvider"]
    )

    def compute(texts: list[str]) -> Answers:
        ids, mask = encoding.ids_and_mask(texts)
        [logits] = session.run(None, {"input_ids": ids, "attention_mask": mask})
        return encoding.answers(logits)

    serve(MicroBatcher(compute))


if __name__ == "__main__":
    main()
