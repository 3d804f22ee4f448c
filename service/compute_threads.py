"""On how many cores each thread of a replica computes.

The OpenMP runtime under torch keeps a team for every thread that ever computed on several cores. As soon as a process
holds more of such threads than there are cores, they sleep between two operations in place of spinning, and waking them
costs more than a short text's matrices: with one idle team beside the engine's, a single text took twice as long
(``python scripts/measure_threads.py``). So one thread of a replica, the wide lane's, computes with torch on all its
cores; every other one on a single core.
"""

import os
import threading

import torch

_CHOOSING = threading.Lock()


def cores_each(sharers: int) -> int:
    """Return the cores of this machine that each of ``sharers`` processes may compute on, at least one."""
    return max(1, len(os.sched_getaffinity(0)) // sharers)


def compute_alone() -> None:
    """Let the calling thread, and those that start later, compute on one core."""
    with _CHOOSING:
        _choose(1)


def compute_on(threads: int) -> None:
    """Let the calling thread compute on ``threads`` cores, and those that start later on one."""
    with _CHOOSING:
        _choose(threads)
        # What a thread sets is the default of those to come: the last word is that of one that is gone at once.
        last = threading.Thread(target=_choose, args=(1,))
        last.start()
        last.join()


def _choose(threads: int) -> None:
    torch.set_num_threads(threads)
    torch.get_num_threads()  # a thread takes the default over at its first question: now, while it is its own
