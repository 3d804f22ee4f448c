"""Export the checkpoint to ONNX, fused for a BERT's heads; with ``int8`` also quantized dynamically."""

import os
import sys
from pathlib import Path

from onnx_export import write_onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers.optimizer import optimize_model
from torch_export import Traceable

OPSET = 18
FLOAT = 1
"""ONNX's number for it: what the quantizer takes the outputs of fused nodes for."""


def main() -> None:
    """Write ``model.onnx`` to the prepared folder."""
    folder = Path(os.environ["PEER_PREPARED"])
    exported, fused, final = (folder / name for name in ("exported.onnx", "fused.onnx", "model.onnx"))
    model = Traceable(os.environ["PEER_MODEL"])
    write_onnx(model, exported, opset=OPSET)
    config = model.model.config
    optimize_model(
        str(exported),
        model_type="bert",
        num_heads=config.num_attention_heads,
        hidden_size=config.hidden_size,
        opt_level=0,
    ).save_model_to_file(str(fused))
    if "int8" in sys.argv[1:]:
        quantize_dynamic(
            fused, final, weight_type=QuantType.QInt8, per_channel=True, extra_options={"DefaultTensorType": FLOAT}
        )
    else:
        fused.replace(final)


if __name__ == "__main__":
    main()
