"""Speeds on disk, run by run: only what one run measured side by side is ever compared.

<root>/speeds.json   {"runs": [{"id", "at", "speeds": {variant id: speed}}, ...] oldest first, "sha256"}
"""

import json
import secrets
import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pruning.checked_json import CHECKSUM, Altered, checked, with_checksum
from pruning.errors import StoreError
from pruning.timing import Speed

SPEEDS = "speeds.json"
RUNS_KEPT = 20
"""Older runs are forgotten."""
REMEDY = "delete it and run 'sparsedial prepare' again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What was measured in turn in one process, hence under the same disturbances."""

    id: str
    at: float
    """When it ended, in Unix seconds."""
    speeds: Mapping[str, Speed]
    """Variant id -> speed."""

    @classmethod
    def now(cls, speeds: Mapping[str, Speed]) -> "Run":
        """Return a run of these speeds that ended now."""
        return cls(id=secrets.token_hex(8), at=time.time(), speeds=speeds)


def read_runs(path: Path) -> list[Run]:
    """Return the runs of a file, oldest first; of an absent one, or one of the time before runs, none.

    Raises:
        StoreError: the file was altered or cannot be read.
    """
    if not path.is_file():
        return []
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(stored, dict) and not stored.keys() & {"runs", CHECKSUM}:
            return []
        return [_run(run) for run in checked(stored, "runs", list)]
    except Altered as error:
        raise StoreError(f"{path} is damaged: it {error}; {REMEDY}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is damaged ({error}); {REMEDY}") from None


def document_of(runs: Sequence[Run], newest: Run) -> dict[str, Any]:
    """Return what is stored: the ``newest``, and of ``runs`` the latest ones with a variant that it has not."""
    kept = [run for run in runs if not run.speeds.keys() <= newest.speeds.keys()]
    return with_checksum("runs", [asdict(run) for run in [*kept, newest][-RUNS_KEPT:]])


def newest_run(runs: Sequence[Run], variant_ids: Set[str]) -> Run | None:
    """Return the newest of ``runs`` that measured all these variants, if any did."""
    return next((run for run in reversed(runs) if variant_ids <= run.speeds.keys()), None)


def _run(values: Mapping[str, Any]) -> Run:
    speeds = {variant_id: Speed(**speed) for variant_id, speed in values["speeds"].items()}
    return Run(id=values["id"], at=values["at"], speeds=speeds)
