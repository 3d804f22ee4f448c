"""On how many cores each thread of a replica computes.

The OpenMP runtime under torch keeps a team for every thread that ever computed on several cores. As soon as a process
holds more of such threads than there are cores, they sleep between two operations in place of spinning, and waking them
costs more than a short text's matrices: with one idle team beside the engine's, a single text took twice as long
(``python scripts/measure_threads.py``). So one thread of a replica computes on all its cores, the engine's; every
other one on a single core.
"""

import torch


def compute_alone() -> None:
    """Let the calling thread, and threads that never said otherwise, compute on one core."""
    torch.set_num_threads(1)


def compute_on(threads: int) -> None:
    """Let the calling thread compute on ``threads`` cores."""
    torch.set_num_threads(threads)
