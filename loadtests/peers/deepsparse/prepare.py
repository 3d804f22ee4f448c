"""Export the checkpoint to ONNX, dense, or with the smallest 90 % of every encoder matrix zeroed."""

import os
import sys
from pathlib import Path

import torch
from torch_export import INPUTS, Traceable, example

OPSET = 14
"""The newest that DeepSparse 1.8.0 reads."""


def main() -> None:
    """Write ``model.onnx`` to the prepared folder; the first argument is the share to zero."""
    model = Traceable(os.environ["PEER_MODEL"])
    _zero(model, float(sys.argv[1]))
    torch.onnx.export(
        model,
        example(),
        Path(os.environ["PEER_PREPARED"]) / "model.onnx",
        input_names=list(INPUTS),
        output_names=["logits"],
        dynamic_axes={name: {0: "texts", 1: "tokens"} for name in INPUTS},
        opset_version=OPSET,
        dynamo=False,
    )


@torch.no_grad()
def _zero(model: Traceable, share: float) -> None:
    """Zero the ``share`` of each encoder matrix with the smallest absolute values."""
    for name, weight in model.named_parameters():
        if share and ".encoder." in name and weight.ndim == 2:
            weight[weight.abs() <= weight.abs().flatten().kthvalue(int(share * weight.numel())).values] = 0.0


if __name__ == "__main__":
    main()
