"""A command in a session of its own: started, watched, and gone with all its children when the block ends."""

import asyncio
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from loadtests.errors import LoadTestError
from loadtests.peers.proc import Tree

GRACE_S = 30.0
"""What a server gets to finish after SIGTERM."""
KILL_S = 10.0
"""How long to wait for what has been ended by force."""
POLL_S = 0.05
SHOWN = 200
"""Characters of a log line that an error repeats."""

_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_FOLDERS = re.compile(r"(?<![\w.])/(?:[^\s/:'\"]+/)+")
_ADDRESSES = re.compile(r"\b[a-z]+://\S+")


class PeerError(LoadTestError):
    """One contestant cannot be measured; its row says why, and the run goes on."""


class Process:
    """A running command. Leaving the block ends it: by SIGTERM, after a while by force, with its whole tree."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        log: Path,
        grace_s: float = GRACE_S,
    ) -> None:
        """Start ``command`` in ``folder``; what it prints goes to ``log``.

        Raises:
            PeerError: there is no such command.
        """
        self._grace_s = grace_s
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            try:
                self._popen = subprocess.Popen(
                    command,
                    cwd=folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise PeerError(f"cannot start {Path(command[0]).name}: {error.strerror}") from error
        self.tree = Tree(self._popen.pid)

    def __enter__(self) -> Self:
        """Return the process."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self.stop()

    @property
    def ended(self) -> bool:
        """True once the command has exited by itself or by ``stop``."""
        if self._popen.returncode is not None:
            return True
        # Not reaped here, so that its number stays its own until its group has been ended.
        return os.waitid(os.P_PID, self._popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def last_words(self) -> str:
        """Return the line of the log that best says why it ended: the last error, or the last line."""
        text = _COLOURS.sub("", self._log.read_text(encoding="utf-8", errors="replace"))
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        errors = [line for line in lines if re.search(r"error|exception", line, re.IGNORECASE)]
        return _told((errors or lines or ["it printed nothing"])[-1])

    def stop(self) -> int:
        """End the command and all that it started; return its exit status."""
        if self._popen.returncode is not None:
            return self._popen.returncode
        self.tree.members()  # who belongs to it is known now, and may be orphaned soon
        try:
            self._ask()
        finally:
            self._kill()
        return self._popen.wait()

    def _ask(self) -> None:
        """Send SIGTERM and wait until the command has exited, for as long as the grace lasts."""
        if self.ended:
            return
        _signal(self._popen.pid, signal.SIGTERM)
        end_s = time.monotonic() + self._grace_s
        while not self.ended and time.monotonic() < end_s:
            time.sleep(POLL_S)

    def _kill(self) -> None:
        """End by force whatever is left, and wait until it is gone."""
        _signal_group(self._popen.pid, signal.SIGKILL)
        end_s = time.monotonic() + KILL_S
        while (left := self.tree.members()) and time.monotonic() < end_s:
            for member in left:
                _signal(member.pid, signal.SIGKILL)
            time.sleep(POLL_S / 10)


async def run_to_end(
    command: Sequence[str], *, folder: Path, environment: Mapping[str, str], log: Path, limit_s: float
) -> None:
    """Run ``command`` and return once it has ended well.

    Raises:
        PeerError: it failed or took longer than ``limit_s``; the words are the last of its log.
    """
    with Process(command, folder=folder, environment=environment, log=log, grace_s=2.0) as process:
        try:
            async with asyncio.timeout(limit_s):
                while not process.ended:
                    await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            raise PeerError(f"not done within {limit_s:g} s: {process.last_words()}") from error
        if status := process.stop():
            raise PeerError(f"exit status {status}: {process.last_words()}")


def _told(line: str) -> str:
    """Return a line fit for a report: short, and without folders and addresses of this machine."""
    line = _FOLDERS.sub("", _ADDRESSES.sub("(address)", line))
    return line if len(line) <= SHOWN else line[:SHOWN] + "..."


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return
