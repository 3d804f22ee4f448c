"""Wanda: weights and activations.

Letters: I inputs and O outputs of a linear layer.
"""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from pruning.calibration import Calibration
from pruning.encoder import BaseModel
from pruning.scores.streamed import Streamed
from pruning.spec import Scope
from pruning.weight_pass import Accumulator, Loss, Plan, Reading


class Wanda(Streamed):
    """``|w_ij| * ||x_j||_2``, x_j input j over all calibration tokens (Wanda, arXiv 2306.11695).

    No labels and no gradients are needed. Scores compete within each output row. Departure: the inputs are the dense
    model's, not those behind layers that are cut already, so that one pass serves every sparsity; only the norms are
    cached.
    """

    name: ClassVar[str] = "wanda"
    version: ClassVar[int] = 1
    scope: ClassVar[Scope] = Scope.ROW
    plan: ClassVar[Plan] = Plan(loss=Loss.NOTHING)

    def accumulator(self, base: BaseModel) -> Accumulator:
        """Return sums of squared inputs."""
        return InputNorms(list(base.prunable_weights()))

    def weights(self, base: BaseModel, calibration: Calibration) -> Mapping[str, Tensor]:
        """Return ``|w| * ||x||``."""
        norms = calibration.load_sums()
        return {name: weight_OI.abs() * norms[name] for name, weight_OI in base.prunable_weights().items()}


class InputNorms:
    """The norm of every input of every prunable weight, [I] each."""

    def __init__(self, names: list[str]) -> None:
        """Begin with nothing."""
        self._names = names
        self._squares: dict[str, Tensor] = {}

    def add(self, reading: Reading) -> None:
        """Add the squares of a batch's inputs, in double precision."""
        for name in self._names:
            squares_I = reading.sightings.input_squares[name].double()
            self._squares[name] = self._squares[name] + squares_I if name in self._squares else squares_I

    def finish(self) -> dict[str, Tensor]:
        """Return the roots of the sums."""
        return {name: squares_I.sqrt().float() for name, squares_I in self._squares.items()}
