"""The policy that holds, and the file that keeps what an operator set of it."""

import asyncio
import json
import logging
from pathlib import Path
from typing import Any, Self

from pruning.files import digest_of, write_json
from service.errors import Invalid, NotReady
from service.floor import accuracy_floor
from service.policy import Policy
from service.state import StateDamaged, StateFileError

POLICY = "policy.json"
"""Name of the file in a store."""

logger = logging.getLogger(__name__)


class PolicyDesk:
    """Holds one policy. What was set by ``change`` outlives the controller; everything else follows the settings."""

    def __init__(self, path: Path, usual: Policy, dense_accuracy: float) -> None:
        """Read what was set before.

        Args:
            path: file of the members that were set; its folder is made when it is first written.
            usual: what holds where nothing was set.
            dense_accuracy: of the dense model; no floor may lie above it.

        Raises:
            StateDamaged: the file was altered, or holds what is no policy.
            StateFileError: it cannot be read.
        """
        self._path = path
        self._usual = usual
        self._dense_accuracy = dense_accuracy
        self._set = self._read()
        self._lock = asyncio.Lock()
        try:
            self.policy = usual.changed(self._set)
        except Invalid as error:
            raise self._damaged(f"does not go with the settings: {error}") from error
        if self._set:
            logger.info("policy: set before and kept: %s", self._set)

    @classmethod
    def of(cls, store: Path, configured_floor: float | None, dense_accuracy: float) -> Self:
        """Return the desk of a service on ``store``, whose settings say at most the floor; raises as the class does."""
        floor = accuracy_floor(configured_floor, dense_accuracy)
        return cls(store / POLICY, Policy(accuracy_floor=floor), dense_accuracy)

    async def change(self, members: Any) -> Policy:
        """Set some members, on disk first; return the policy that holds from now on.

        Raises:
            Invalid: a member that cannot be valid, contradicts another, or a floor above the dense model.
            NotReady: the file cannot be written; nothing has changed.
        """
        async with self._lock:
            policy = self.policy.changed(members)
            if policy.accuracy_floor > self._dense_accuracy:
                raise Invalid(
                    f"accuracy_floor {policy.accuracy_floor:.4f} is above the accuracy of the dense model, "
                    f"{self._dense_accuracy:.4f}: nothing could be served; choose a lower one."
                )
            members = {name: policy.as_dict()[name] for name in (*self._set, *members)}
            try:
                await asyncio.to_thread(self._write, members)
            except OSError as error:
                raise NotReady(f"Nothing was changed: {self._path} could not be written ({error}).") from error
            self._set, self.policy = members, policy
            logger.info("policy=%s", policy.as_dict())
            return policy

    def _write(self, members: dict[str, Any]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self._path, {"policy": members, "sha256": digest_of(members)})

    def _read(self) -> dict[str, Any]:
        try:
            stored = json.loads(self._path.read_bytes())
            members, checksum = dict(stored["policy"]), stored["sha256"]
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StateFileError(f"{self._path} cannot be read: {error.strerror}; mend its permissions") from error
        except (ValueError, KeyError, TypeError):
            raise self._damaged("is not the JSON that was written") from None
        if digest_of(members) != checksum:
            raise self._damaged("does not match its checksum")
        return members

    def _damaged(self, what: str) -> StateDamaged:
        return StateDamaged(f"{self._path} {what}; delete it to go back to the policy of the settings")
