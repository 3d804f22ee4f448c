import platform
import subprocess
import sys

import pytest

SCRIPT = """
from pathlib import Path
from pruning.freed_memory import give_back

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

pieces = [bytes(50_000) for _ in range(4_000)]  # too small to be mapped one by one
last = bytes(50_000)  # keeps the heap from shrinking by itself
del pieces
before = resident()
give_back()
print(before - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps what was freed")
def test_what_was_freed_goes_back_to_the_system() -> None:
    freed = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stdout
    assert int(freed) > 100_000_000
