"""The birth certificate of a number: machine, versions, commit, and the CPU that the generator itself took."""

import os
import platform
import resource
import subprocess
from importlib.metadata import version
from pathlib import Path

from loadtests import priority


def certificate() -> dict[str, str]:
    """Return what a reader needs to know of this machine and of the generator, as label and words."""
    return {
        "machine": f"{_cpu_model()}, {len(os.sched_getaffinity(0))} cores, {_memory_gib()} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "generator": f"one process, Python {platform.python_version()}, aiohttp {version('aiohttp')}",
        "generator's priority": priority.told(),
        "commit": _commit(),
    }


def own_cpu_s() -> float:
    """Return the CPU seconds that this process has taken so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _cpu_model() -> str:
    """Return the processor's name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _memory_gib() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)


def _commit() -> str:
    """Return the commit of the checkout, with a word when files differ from it."""
    root = Path(__file__).resolve().parent.parent
    try:
        described = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown (no git checkout)"
    return described.stdout.strip()
