"""Virtual environments of the contestants: made from their pinned requirements, kept between runs."""

import hashlib
import os
import platform
import shutil
import sys
from pathlib import Path

from loadtests.peers.process import PeerError, run_to_end
from loadtests.progress import say

READY = ".ready"
LIMIT_S = 1800.0
BRINGS = "# What these bring."
"""Comment in a requirements file between the pins that were chosen and those that follow from them."""
FOREIGN = ("SPARSEDIAL_", "RAY_", "OMP_", "MKL_", "KMP_", "OPENBLAS_", "TORCH_", "OV_", "PYTHON", "VIRTUAL_ENV")
"""Beginnings of variables that the caller's shell may have and a contestant must not inherit."""
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "INFINITY_ANONYMOUS_USAGE_STATS": "0",
    "BENTOML_DO_NOT_TRACK": "True",
    "RAY_USAGE_STATS_ENABLED": "0",
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
}
"""Nothing is fetched from a hub, and nobody is told of the run."""


def clean_environment() -> dict[str, str]:
    """Return the variables that every contestant starts with: the same number of threads for all, its own default."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return kept | QUIET


def pins(requirements: Path) -> list[str]:
    """Return the requirements that were chosen, without those that they bring."""
    chosen, _, _ = requirements.read_text(encoding="utf-8").partition(BRINGS)
    return [line for line in chosen.splitlines() if line and not line.startswith("#")]


async def environment_python(name: str, requirements: Path, *, envs: Path) -> Path:
    """Return the interpreter of the environment ``name`` under ``envs``, made anew if its requirements have changed.

    Raises:
        PeerError: it cannot be installed here.
    """
    folder = envs / name
    python = folder / "bin" / "python"
    wanted = _digest(requirements)
    ready = folder / READY
    if ready.is_file() and ready.read_text(encoding="utf-8") == wanted:
        return python
    if folder.exists():
        if not (folder / "pyvenv.cfg").is_file():
            raise PeerError(f"{name}: the folder for its environment is there and is none; choose another --envs")
        shutil.rmtree(folder)
    say(f"{name}: installing ...")
    log = envs / "logs" / f"{name}-install.log"
    steps = (
        (sys.executable, "-m", "venv", str(folder)),
        (str(python), "-m", "pip", "install", "--requirement", str(requirements)),
    )
    try:
        for command in steps:
            await run_to_end(
                command, folder=requirements.parent, environment=clean_environment(), log=log, limit_s=LIMIT_S
            )
    except PeerError as error:
        raise PeerError(f"does not install: {error}") from error
    ready.write_text(wanted, encoding="utf-8")
    return python


def _digest(requirements: Path) -> str:
    """Return what an environment depends on, in short."""
    return hashlib.sha256(platform.python_version().encode() + requirements.read_bytes()).hexdigest()
