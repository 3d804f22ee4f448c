"""From a run to an exit code: the report written and printed, broken laws told, an interrupted run ended in order."""

import asyncio
import json
import signal
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loadtests import report
from loadtests.errors import LoadTestError
from loadtests.progress import say
from loadtests.result import Result

HELD, BROKEN, CANNOT = 0, 1, 2


def exit_code_of(run: Coroutine[Any, Any, Result], *, out: Path | None, as_json: bool) -> int:
    """Await ``run``, print its report (or figures) on stdout, write it under ``out`` if given; return the exit code."""
    try:
        result = asyncio.run(_until_told(run))
        taken_at = datetime.now(UTC)
        if out:
            say(f"wrote {report.write(result, out, taken_at=taken_at)}")
    except (LoadTestError, OSError) as error:
        say(f"error: {error}")
        return CANNOT
    except (KeyboardInterrupt, asyncio.CancelledError):
        say("interrupted; nothing was written")
        return CANNOT
    if as_json:
        print(json.dumps(report.as_json(result, taken_at=taken_at), indent=2))
    else:
        print(report.markdown(result, taken_at=taken_at), end="")
    for law in result.laws:
        if not law.held:
            say(f"BROKEN {law.name}: {law.detail}")
    return HELD if result.held else BROKEN


async def _until_told(run: Coroutine[Any, Any, Result]) -> Result:
    """Return what ``run`` returns; SIGTERM or a closed terminal cancels it, as Ctrl-C does, so that all is closed."""
    task = asyncio.current_task()
    if task is not None:
        for number in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await run
