import os
import threading

import pytest
import torch

from service.compute_threads import compute_alone, compute_on, cores_each


def cores_in_a_new_thread() -> int:
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return seen[0]


@pytest.mark.parametrize(("sharers", "expected"), [(1, 6), (2, 3), (4, 1), (7, 1)])
def test_a_machine_s_cores_are_shared_out_and_nobody_gets_none(
    sharers: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)))
    assert cores_each(sharers) == expected


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_thread_that_computes_on_cores_leaves_one_to_those_that_come(threads: int) -> None:
    seen: list[int] = []

    def compute() -> None:
        compute_on(threads)
        seen.append(torch.get_num_threads())
        seen.append(cores_in_a_new_thread())
        seen.append(torch.get_num_threads())

    engine = threading.Thread(target=compute)
    engine.start()
    engine.join()
    assert seen == [threads, 1, threads]


def test_alone_is_one_core_for_this_thread_and_those_that_come() -> None:
    seen: list[int] = []

    def compute() -> None:
        torch.set_num_threads(2)
        compute_alone()
        seen.extend([torch.get_num_threads(), cores_in_a_new_thread()])

    thread = threading.Thread(target=compute)
    thread.start()
    thread.join()
    assert seen == [1, 1]


def test_threads_that_start_at_once_each_keep_their_own_number() -> None:
    seen: list[tuple[int, int]] = []
    together = threading.Barrier(12)

    def compute(threads: int) -> None:
        together.wait()
        compute_alone() if threads == 1 else compute_on(threads)
        seen.append((threads, torch.get_num_threads()))

    started = [threading.Thread(target=compute, args=(1 + number % 3,)) for number in range(12)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    assert sorted(seen) == [(number, number) for number in (1, 2, 3) for _ in range(4)]
