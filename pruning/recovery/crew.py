"""The workers that train one student together.

Each of them has the whole student and takes its share of every batch. What it computes of a share is weighted such
that the shares' losses add up to the batch's. So do their gradients: every worker takes the step that one alone would
take, but for rounding (synchronous data parallelism).
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch import distributed as group

from pruning.errors import RecoveryError


class Crew(Protocol):
    """What a worker knows of the others. Every worker calls the same methods in the same order."""

    @property
    def rank(self) -> int:
        """Number of this worker; 0 is the one that scores, writes and whose clock counts."""

    @property
    def size(self) -> int:
        """How many workers there are."""

    def total(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the sum of each tensor over all workers: the same bits on all of them.

        Raises:
            RecoveryError: a worker is gone.
        """

    def agreed(self, value: float) -> float:
        """Return what worker 0 has for ``value``.

        Raises:
            RecoveryError: a worker is gone.
        """


class Solo:
    """One worker alone."""

    rank = 0
    size = 1

    def total(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the tensors."""
        return list(tensors)

    def agreed(self, value: float) -> float:
        """Return the value."""
        return value


class Gang:
    """The workers of torch's default process group, which has been set up."""

    def __init__(self, device: torch.device) -> None:
        """Take the ``device`` on which this worker's messages lie: a GPU for nccl, the CPU for gloo."""
        self.rank, self.size = group.get_rank(), group.get_world_size()
        self._device = device

    def total(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the sums over all workers, in one message; tensors must have one type of numbers."""
        message = torch.cat([tensor.reshape(-1) for tensor in tensors]).to(self._device)
        try:
            group.all_reduce(message)
        except RuntimeError as error:
            raise _someone_left(error) from error
        parts = message.split([tensor.numel() for tensor in tensors])
        return [part.view_as(tensor).to(tensor.device) for part, tensor in zip(parts, tensors, strict=True)]

    def agreed(self, value: float) -> float:
        """Return worker 0's value."""
        message = torch.tensor(value, dtype=torch.float64, device=self._device)
        try:
            group.broadcast(message, src=0)
        except RuntimeError as error:
            raise _someone_left(error) from error
        return float(message)


SOLO = Solo()


def of_worker_0(tensors: Mapping[str, Tensor], crew: Crew) -> dict[str, Tensor]:
    """Return worker 0's tensors: processors that round otherwise would not begin with the same student."""
    mine = [tensor if crew.rank == 0 else torch.zeros_like(tensor) for tensor in tensors.values()]
    return total_by_name(dict(zip(tensors, mine, strict=True)), crew)


def total_by_name(tensors: Mapping[str, Tensor], crew: Crew) -> dict[str, Tensor]:
    """Return the sum of each tensor over all workers, by its name; every worker has the same names."""
    return dict(zip(tensors, crew.total(list(tensors.values())), strict=True)) if tensors else {}


def _someone_left(error: RuntimeError) -> RecoveryError:
    reason = str(error).partition("\n")[0]
    return RecoveryError(f"a worker of the training is gone ({reason}); the same command with --resume goes on")
