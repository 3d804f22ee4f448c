"""SIGTERM and SIGINT as ``sparsedial serve`` takes them: an interruption of its start, a wish while it serves."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

STOPPING = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """Takes both signals for the block, in the main thread.

    Until ``wait`` each of them raises ``KeyboardInterrupt``, which breaks off whatever the start waits for, Ray's own
    waits too. From ``wait`` or ``hold`` on they interrupt nothing.
    """

    def __init__(self) -> None:
        """Take nothing yet."""
        self._stop = threading.Event()
        self._interrupts = True
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Begin to take them."""
        self._before = {number: signal.getsignal(number) for number in STOPPING}
        self.take()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Leave them to whoever had them before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def take(self) -> None:
        """Take them again from whoever took them meanwhile: Ray does, while it starts."""
        for number in STOPPING:
            signal.signal(number, self._arrived)

    def wait(self) -> None:
        """Return at the first of them."""
        self.hold()
        self._stop.wait()

    def hold(self) -> None:
        """Let none of them interrupt what follows."""
        self._interrupts = False

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        self._stop.set()
        if self._interrupts:
            raise KeyboardInterrupt
