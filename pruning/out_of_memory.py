"""A want of memory, said in the words of whoever asked for too much."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pruning.errors import DeviceMemoryError

CPU_ALLOCATOR = "DefaultCPUAllocator"
"""Stands in what torch raises where the CPU's memory is full: a plain ``RuntimeError``."""


@contextmanager
def memory_for(what: str, remedy: str) -> Iterator[None]:
    """Refuse with ``remedy`` when the block finds no memory for ``what``.

    Raises:
        DeviceMemoryError: Python or torch found none, on a CPU or a GPU.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        known = isinstance(error, MemoryError | torch.OutOfMemoryError) or CPU_ALLOCATOR in str(error)
        if not known:
            raise
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DeviceMemoryError(f"no memory is left for {what}: {reason}; {remedy}") from error
