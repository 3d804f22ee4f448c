"""What this machine's processor calls itself, so that times which were measured elsewhere are known as such."""

import os
import platform
from pathlib import Path

NAMES = Path("/proc/cpuinfo")


def processor() -> str:
    """Return the processor's name, as far as the system tells it, with the machine's number of cores."""
    return f"{_name()}, {os.cpu_count()} cores"


def _name() -> str:
    try:
        lines = NAMES.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
