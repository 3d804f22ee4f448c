"""Export the checkpoint to ONNX, dense, or with the smallest 90 % of every encoder matrix zeroed."""

import os
import sys
from pathlib import Path

import torch
from onnx_export import write_onnx
from torch_export import Traceable

OPSET = 14
"""The newest that DeepSparse 1.8.0 reads."""


def main() -> None:
    """Write ``model.onnx`` to the prepared folder; the first argument is the share to zero."""
    model = Traceable(os.environ["PEER_MODEL"])
    _zero(model, float(sys.argv[1]))
    write_onnx(model, Path(os.environ["PEER_PREPARED"]) / "model.onnx", opset=OPSET)


@torch.no_grad()
def _zero(model: Traceable, share: float) -> None:
    """Zero the ``share`` of each encoder matrix with the smallest absolute values."""
    for name, weight in model.named_parameters():
        if share and ".encoder." in name and weight.ndim == 2:
            weight[weight.abs() <= weight.abs().flatten().kthvalue(int(share * weight.numel())).values] = 0.0


if __name__ == "__main__":
    main()
