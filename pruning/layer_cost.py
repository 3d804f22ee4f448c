"""What encoder layers cost as they lie there: by their widths, and by the zeros among their weights."""

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from pruning.cost import Cost, Shape, structured_cost
from pruning.quantization import MATRICES
from pruning.slim.convert import layer_widths

MATRIX_WEIGHTS = tuple(f"{matrix}.weight" for matrix in MATRICES)


def cost_of_layers(layers: Mapping[str, Tensor], shape: Shape, *, count_zeros: bool) -> Cost:
    """Return the cost of layers of these widths; unless ``count_zeros``, of parameters those that are not zero."""
    cost = structured_cost(shape, *layer_widths(layers, shape))
    if count_zeros:
        return cost
    return less_zeros(cost, {name: layers[name] != 0 for name in layers if name.endswith(MATRIX_WEIGHTS)})


def less_zeros(dense: Cost, mask: Mapping[str, Tensor]) -> Cost:
    """Return the cost of an unstructured variant: fewer non-zero parameters, the same work and memory."""
    zeros = sum(int((~part).sum()) for part in mask.values())
    return replace(dense, parameters=dense.parameters - zeros, prunable_parameters=dense.prunable_parameters - zeros)
