"""The progress of a training run on stderr: step, loss, held-out score, time left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from service.terminal import PLAIN_STEP, say, stderr

if TYPE_CHECKING:  # it brings torch
    from pruning.recovery.training import Progress as Trained


@contextmanager
def training_bar(what: str) -> Iterator[Callable[["Trained"], None]]:
    """Show how a training run goes; in place on a terminal, else a line now and then."""
    if not stderr.is_terminal:
        yield _plain(what)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[words]}"))
    with Progress(*columns, console=stderr) as bars:
        bar = bars.add_task(what, total=1.0, words="")
        yield lambda trained: bars.update(bar, completed=trained.share, words=_words(trained))


def _plain(what: str) -> Callable[["Trained"], None]:
    """Return what writes a line after the first step and then at about every ``PLAIN_STEP`` percent."""
    shown = -1

    def tell(trained: "Trained") -> None:
        nonlocal shown
        percent = int(100 * trained.share)
        if shown < 0 or percent // PLAIN_STEP > shown // PLAIN_STEP:
            shown = percent
            say(f"{what}: {percent} %, {_words(trained)}")

    return tell


def _words(trained: "Trained") -> str:
    minutes, seconds = divmod(round(trained.seconds_left), 60)
    return f"step {trained.step}, loss {trained.loss:.3f}, score {trained.score:.1%}, {minutes}:{seconds:02d} left"
