"""The rollout's state on disk: one JSON file, replaced in one step, refused when it is not what was written."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pruning.errors import StoreError
from pruning.files import digest_of, write_json
from pruning.spec import PruneSpec
from service.operations import Asker, Canary, Cause, Choice, Kind, Operation, Phase, RolloutState

STATE = "state.json"
"""Name of the file in a store."""

SCHEMA = 3
"""Raised whenever the file's members change."""
READABLE = (1, 2, SCHEMA)
"""What older files lack has its usual values: trials and the guard in 1, the words of a trial in 2."""


class StateFileError(StoreError):
    """The state file cannot be used; the message names it and the remedy."""


class StateDamaged(StateFileError):
    """The file is there, but is not what this version of the service wrote."""


class StateUnwritable(StateFileError):
    """The file could not be written; it holds what it held before."""


class StateFile:
    """The durable half of the controller."""

    def __init__(self, path: Path) -> None:
        """Use the file at ``path``; its folder is made when it is first written."""
        self.path = path

    def read(self) -> RolloutState | None:
        """Return the state as last written, None where nothing was ever written.

        Raises:
            StateDamaged: the file was cut short, altered or written by another version.
            StateFileError: the file cannot be read at all.
        """
        try:
            raw = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateFileError(f"{self.path} cannot be read: {error.strerror}; mend its permissions") from error
        try:
            values = json.loads(raw)
            schema, checksum, state = values["schema"], values["sha256"], values["state"]
            actual = digest_of(state)
        except (ValueError, KeyError, TypeError):
            raise self._damaged("is not the JSON that was written") from None
        if schema not in READABLE:
            raise self._damaged(f"has schema {schema!r}, this version reads {SCHEMA}")
        if actual != checksum:
            raise self._damaged(f"does not match its checksum {str(checksum)[:12]}")
        try:
            return _state(state)
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(f"holds a value that this version does not know ({error})") from error

    def write(self, state: RolloutState) -> bool:
        """Replace the file by ``state``; return whether it is sure to outlive a loss of power.

        It is not if its folder could not be synced after the file was renamed: whoever reads the file finds
        ``state``, and writing it once more is a new attempt.

        Raises:
            StateUnwritable: no space, no permission, or a failing disk.
        """
        values = asdict(state)
        checksum = digest_of(values)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, {"schema": SCHEMA, "sha256": checksum, "state": values})
        except OSError as error:
            if self._holds(checksum):
                return False
            raise StateUnwritable(
                f"{self.path} could not be written: {error.strerror or error}; free space or make it writable"
            ) from error
        return True

    def _holds(self, checksum: str) -> bool:
        """Tell whether the file in place is the one with this checksum."""
        try:
            return bool(json.loads(self.path.read_bytes())["sha256"] == checksum)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _damaged(self, what: str) -> StateDamaged:
        return StateDamaged(
            f"{self.path} {what}; restore it from a backup, or delete it to start again from the configured sparsity"
        )


def _state(values: Mapping[str, Any]) -> RolloutState:
    """Rebuild from ``asdict`` and JSON."""
    return RolloutState(
        **{
            **values,
            "committed": _choice(values["committed"]),
            "previous": _choice(values["previous"]) if values["previous"] else None,
            "operation": _operation(values["operation"]) if values["operation"] else None,
            "history": tuple(_operation(operation) for operation in values["history"]),
            "distrusted": tuple(values.get("distrusted", ())),
        }
    )


def _choice(values: Mapping[str, Any]) -> Choice:
    return Choice(**{**values, "spec": PruneSpec.from_dict(values["spec"])})


def _operation(values: Mapping[str, Any]) -> Operation:
    return Operation(
        **{
            **values,
            "kind": Kind(values["kind"]),
            "spec": PruneSpec.from_dict(values["spec"]),
            "entered": tuple((Phase(phase), moment) for phase, moment in values["entered"]),
            "error_type": Cause(values["error_type"]) if values["error_type"] else None,
            "canary": Canary(**values["canary"]) if values.get("canary") else None,
            "asked_by": Asker(values.get("asked_by", Asker.OPERATOR)),
        }
    )
