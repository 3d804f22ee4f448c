"""The policy that holds, and the file that keeps what an operator set of it."""

import asyncio
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from pruning.checked_json import Altered, checked, with_checksum
from pruning.files import write_json
from pruning.variants import VariantStore
from service.errors import Invalid, NotReady, PreconditionFailed
from service.floor import accuracy_floor, below_floor
from service.ladder_cascades import LadderCascade, ladder_cascades
from service.policy import CascadeChoice, Policy
from service.state import StateDamaged, StateFileError

POLICY = "policy.json"
"""Name of the file in a store."""
OFF = "cascade_off"
"""Stands in the file beside the members that were set: why the guard switched the cascade off."""

logger = logging.getLogger(__name__)


class PolicyDesk:
    """Holds one policy. What was set by ``change`` outlives the controller; everything else follows the settings."""

    def __init__(
        self, path: Path, usual: Policy, dense_accuracy: float, cascades: tuple[LadderCascade, ...] = ()
    ) -> None:
        """Read what was set before.

        Args:
            path: file of the members that were set; its folder is made when it is first written.
            usual: what holds where nothing was set.
            dense_accuracy: of the dense model; no floor may lie above it.
            cascades: those of the ladder, levels in the usual precision first.

        Raises:
            StateDamaged: the file was altered, or holds what is no policy.
            StateFileError: it cannot be read.
        """
        self._path = path
        self._usual = usual
        self._dense_accuracy = dense_accuracy
        self.cascades = cascades
        """Those that the policy may name."""
        self._set, self.cascade_off = self._read()
        """What was set; why the guard switched the policy's cascade off, None while it answers."""
        self.cascade_settings = 0
        """How often a cascade was set, or taken back, since the start."""
        self._lock = asyncio.Lock()
        try:
            self.policy = usual.changed(self._set)
            self._check_cascade(self.policy)
        except Invalid as error:
            raise self._damaged(f"does not go with the settings: {error}") from error
        if self._set:
            logger.info("policy: set before and kept: %s", self._set)

    @classmethod
    def of(cls, store: VariantStore, ladder: Sequence[str], configured_floor: float | None) -> Self:
        """Return the desk of a service whose settings say at most the floor.

        Raises:
            StateDamaged, StateFileError: as the class.
            StoreError: a level of the ``ladder``, dense first, or its cascades cannot be read.
        """
        dense_accuracy = store.manifest(ladder[0]).evaluation.accuracy
        usual = Policy(accuracy_floor=accuracy_floor(configured_floor, dense_accuracy))
        return cls(store.root / POLICY, usual, dense_accuracy, ladder_cascades(store, ladder))

    @property
    def chosen_cascades(self) -> tuple[LadderCascade, ...]:
        """The cascades that the policy names: of several precisions the usual one first."""
        choice = self.policy.cascade
        return tuple(
            one
            for one in self.cascades
            if choice is not None and (one.sparsity, one.cascade.target) == (choice.sparsity, choice.agreement)
        )

    async def change(self, members: Any, expected: str | None = None) -> Policy:
        """Set some members, on disk first; return the policy that holds from now on.

        A cascade that the guard had switched off answers again if it is among them.

        Args:
            members: as a JSON object.
            expected: the ``etag`` of the policy that they were meant to change; None changes any.

        Raises:
            PreconditionFailed: another policy holds than the expected one.
            Invalid: a member that cannot be valid, contradicts another, a floor above the dense model, or a cascade
                that the ladder does not have.
            NotReady: the file cannot be written; nothing has changed.
        """
        async with self._lock:
            if expected not in (None, self.policy.etag):
                raise PreconditionFailed(
                    f'If-Match names policy "{expected}", and "{self.policy.etag}" holds; look at it, then ask again.'
                )
            policy = self.policy.changed(members)
            if policy.accuracy_floor > self._dense_accuracy:
                raise Invalid(
                    f"accuracy_floor {policy.accuracy_floor:.4f} is above the accuracy of the dense model, "
                    f"{self._dense_accuracy:.4f}: nothing could be served; choose a lower one."
                )
            self._check_cascade(policy)
            off = None if "cascade" in members else self.cascade_off
            settings = self.cascade_settings + ("cascade" in members)
            members = {name: policy.as_dict()[name] for name in (*self._set, *members)}
            try:
                await asyncio.to_thread(self._write, members, off)
            except OSError as error:
                raise NotReady(f"Nothing was changed: {self._path} could not be written ({error}).") from error
            self._set, self.policy = members, policy
            self.cascade_off, self.cascade_settings = off, settings
            logger.info("policy=%s", policy.as_dict())
            return policy

    async def switch_cascade_off(self, choice: CascadeChoice, words: str) -> bool:
        """Let the policy's cascade answer no longer, if it is ``choice`` and still answers; tell whether it was so.

        It ends at once, and on disk if that can be written: a full disk keeps nothing answering that disagrees.
        """
        async with self._lock:
            if self.policy.cascade != choice or self.cascade_off is not None:
                return False
            self.cascade_off = words
            try:
                await asyncio.to_thread(self._write, self._set, words)
            except OSError as error:
                logger.error("%s could not be written (%s): a restart lets the cascade answer again", self._path, error)
            return True

    def _check_cascade(self, policy: Policy) -> None:
        """Raise if the policy's cascade begins with a level that has none, or that may not answer alone."""
        if policy.cascade is None:
            return
        sparsity = policy.cascade.sparsity
        level = next((one.level for one in self.cascades if one.sparsity == sparsity), None)
        if level is None:
            known = ", ".join(f"{one:g}" for one in sorted({one.sparsity for one in self.cascades})) or "none"
            raise Invalid(f"no cascade begins at sparsity {sparsity:g}; levels of the ladder that have one: {known}.")
        if (accuracy := level.evaluation.accuracy) < policy.accuracy_floor:
            raise Invalid(
                f"the cascade's level {sparsity:g} answers alone where there is no time for the dense model, and "
                f"{below_floor(accuracy, policy.accuracy_floor)}; choose a denser one."
            )

    def _write(self, members: dict[str, Any], cascade_off: str | None) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        off = {} if cascade_off is None else {OFF: cascade_off}
        write_json(self._path, with_checksum("policy", members | off))

    def _read(self) -> tuple[dict[str, Any], str | None]:
        """Return the members that were set, and why the cascade among them is off."""
        try:
            stored = checked(json.loads(self._path.read_bytes()), "policy", dict)
        except FileNotFoundError:
            return {}, None
        except OSError as error:
            raise StateFileError(f"{self._path} cannot be read: {error.strerror}; mend its permissions") from error
        except Altered as error:
            raise self._damaged(str(error)) from None
        except (ValueError, KeyError, TypeError):
            raise self._damaged("is not the JSON that was written") from None
        cascade_off = stored.pop(OFF, None)
        return stored, cascade_off

    def _damaged(self, what: str) -> StateDamaged:
        return StateDamaged(f"{self._path} {what}; delete it to go back to the policy of the settings")
