"""The picture that a command draws where ``--plot`` names a file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pruning.errors import SpecError


def require_png(plot: Path | None) -> None:
    """Refuse a file that is not named as a PNG.

    Raises:
        SpecError: it is not; names one that would be.
    """
    if plot is not None and plot.suffix != ".png":
        raise SpecError(f"--plot writes a PNG; name it so: {plot.with_suffix('.png')}, not {plot}")


@contextmanager
def drawing(plot: Path) -> Iterator[None]:
    """Say which file it is where the block cannot write it.

    Raises:
        SpecError: it cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise SpecError(f"--plot {plot} cannot be written: {error.strerror}") from error
