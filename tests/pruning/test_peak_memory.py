import platform
from pathlib import Path

import pytest

from pruning.peak_memory import peak_memory

MIB = 1 << 20

linux = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux alone counts this")


def written(size: int) -> bytearray:
    return bytearray(b"x") * size


@linux
def test_what_was_held_for_a_moment_counts() -> None:
    with peak_memory() as peak:
        written(64 * MIB)
    assert 56 * MIB < peak[0] < 80 * MIB


@linux
def test_what_was_held_before_does_not_count() -> None:
    held = written(64 * MIB)
    written(96 * MIB)
    with peak_memory() as peak:
        written(16 * MIB)
    assert len(held) == 64 * MIB and 12 * MIB < peak[0] < 32 * MIB


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps what was freed")
def test_what_was_freed_before_does_not_hide_what_is_taken() -> None:
    pieces = [b"x" * 50_000 for _ in range(1_300)]  # too small to be mapped one by one
    last = b"x" * 50_000  # keeps the heap from shrinking by itself
    del pieces
    with peak_memory() as peak:
        pieces = [b"x" * 50_000 for _ in range(1_300)]
    assert len(pieces) == 1_300 and len(last) == 50_000 and peak[0] > 48 * MIB


def test_where_nobody_says_it_nothing_is_told(tmp_path: Path) -> None:
    with peak_memory(tmp_path / "absent") as peak:
        pass
    assert peak == []
