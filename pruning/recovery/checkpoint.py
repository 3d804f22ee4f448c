"""Checkpoints of a run, so that one that was killed goes on as if it had not been.

<root>/recovering/<cut id>-<recipe id>/<step>/state.safetensors    student, optimizer, best layers so far
                                             /record.json          step, seconds, scores, checksum

A checkpoint is written aside and renamed, then the one before goes. There is no generator to keep: the order of the
rows is a function of seed and step.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from pruning.checked_tensors import read_checked
from pruning.errors import RecoveryError, StoreError
from pruning.files import digest_of, new_folder, remove_folder, sha256_of, sweep_asides, write_json

STATE, RECORD = "state.safetensors", "record.json"
BEST = "best."
REMEDY = "train without --resume"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far a run is."""

    step: int
    """Optimizer steps taken."""
    seconds: float
    """Seconds trained, pauses between a kill and a resumption left out."""
    score: float
    """Of the held-out rows, now."""
    first_score: float
    """Before the first step."""
    best_score: float
    best_step: int
    reached: float | None
    """Best score since the learning rate began to fall; None while it rises."""
    without_gain: int
    """Scores since that one."""


class Checkpoints:
    """The checkpoints of one run: of one cut and one recipe."""

    def __init__(self, root: Path, run_id: str) -> None:
        """Use ``root``, a store; nothing is made until the first one is written."""
        self.folder = root / "recovering" / run_id

    def __bool__(self) -> bool:
        """Tell whether there is one to go on from."""
        return bool(self._steps())

    def put(self, standing: Standing, state: Mapping[str, Tensor], best: Mapping[str, Tensor]) -> None:
        """Write a checkpoint and remove those before it.

        Raises:
            StoreError: it cannot be written; the one before is still there.
        """
        older = self._steps()
        tensors = {name: tensor.contiguous() for name, tensor in state.items()}
        tensors |= {f"{BEST}{name}": tensor.contiguous() for name, tensor in best.items()}
        try:
            with new_folder(self._at(standing.step), RECORD) as aside:
                save_file(tensors, aside / STATE)
                values = asdict(standing) | {"sha256": sha256_of(aside / STATE)}
                write_json(aside / RECORD, values | {"record_sha256": digest_of(values)})
            for step in older:
                if step != standing.step:
                    remove_folder(self._at(step))
        except (OSError, SafetensorError) as error:
            raise StoreError(
                f"no checkpoint could be written to {self.folder}: {error}; free space or choose a writable --store"
            ) from error

    def newest(self) -> tuple[Standing, dict[str, Tensor], dict[str, Tensor]]:
        """Return (standing, state, best layers) of the newest checkpoint.

        Raises:
            RecoveryError: there is none, or its record was altered.
            CacheError: its tensors were.
        """
        steps = self._steps()
        if not steps:
            raise RecoveryError(f"no checkpoint in {self.folder}; {REMEDY}")
        folder = self._at(steps[-1])
        try:
            values = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            claimed, checksum = values.pop("record_sha256"), values["sha256"]
            intact = digest_of(values) == claimed
            standing = Standing(**{name: value for name, value in values.items() if name != "sha256"})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RecoveryError(f"{folder / RECORD} is damaged: {error}; {REMEDY}") from error
        if not intact:
            raise RecoveryError(f"{folder / RECORD} does not match its checksum; {REMEDY}")
        tensors = read_checked(folder / STATE, checksum, REMEDY)
        best = {name.removeprefix(BEST): tensor for name, tensor in tensors.items() if name.startswith(BEST)}
        return standing, {name: tensor for name, tensor in tensors.items() if not name.startswith(BEST)}, best

    def clear(self) -> None:
        """Remove all checkpoints of the run, and what killed writers left aside."""
        if self.folder.is_dir():
            sweep_asides(self.folder, older_than_s=0.0)
            remove_folder(self.folder)

    def _at(self, step: int) -> Path:
        return self.folder / f"{step:08d}"

    def _steps(self) -> list[int]:
        """Return the steps of all whole checkpoints, ascending."""
        found = self.folder.glob(f"[0-9]*/{RECORD}")
        return sorted(int(path.parent.name) for path in found if path.parent.name.isdigit())
