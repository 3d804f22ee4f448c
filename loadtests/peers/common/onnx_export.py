"""Write the checkpoint as ONNX."""

from pathlib import Path

import torch
from torch_export import INPUTS, Traceable, example


def write_onnx(model: Traceable, path: Path, *, opset: int) -> None:
    """Export for any number of texts and tokens."""
    torch.onnx.export(
        model,
        example(),
        path,
        input_names=list(INPUTS),
        output_names=["logits"],
        dynamic_axes={name: {0: "texts", 1: "tokens"} for name in INPUTS},
        opset_version=opset,
        dynamo=False,
    )
