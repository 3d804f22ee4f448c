"""Convert the checkpoint to OpenVINO's format."""

import os
from pathlib import Path

import openvino
from torch_export import INPUTS, Traceable, example


def main() -> None:
    """Write ``model.xml`` to the prepared folder."""
    inputs = dict(zip(INPUTS, example(), strict=True))
    model = openvino.convert_model(Traceable(os.environ["PEER_MODEL"]), example_input=inputs)
    openvino.save_model(model, Path(os.environ["PEER_PREPARED"]) / "model.xml", compress_to_fp16=False)


if __name__ == "__main__":
    main()
