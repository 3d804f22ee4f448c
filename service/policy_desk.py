"""The policy that holds, and the file that keeps what an operator set of it."""

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from pruning.cascades import read_cascades
from pruning.checked_json import Altered, checked, with_checksum
from pruning.files import write_json
from pruning.variants import VariantStore
from service.errors import Invalid, NotReady
from service.floor import accuracy_floor, below_floor
from service.policy import Policy
from service.state import StateDamaged, StateFileError

POLICY = "policy.json"
"""Name of the file in a store."""

logger = logging.getLogger(__name__)


class PolicyDesk:
    """Holds one policy. What was set by ``change`` outlives the controller; everything else follows the settings."""

    def __init__(
        self, path: Path, usual: Policy, dense_accuracy: float, cascaded: Mapping[float, float] = MappingProxyType({})
    ) -> None:
        """Read what was set before.

        Args:
            path: file of the members that were set; its folder is made when it is first written.
            usual: what holds where nothing was set.
            dense_accuracy: of the dense model; no floor may lie above it.
            cascaded: accuracy of the levels that a cascade may begin with, by their sparsity.

        Raises:
            StateDamaged: the file was altered, or holds what is no policy.
            StateFileError: it cannot be read.
        """
        self._path = path
        self._usual = usual
        self._dense_accuracy = dense_accuracy
        self._cascaded = cascaded
        self._set = self._read()
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
        cascades = read_cascades(store.root, ladder)
        dense, *levels = (store.manifest(variant_id) for variant_id in ladder)
        cascaded = {  # of several precisions the usual one, which comes first
            level.spec.sparsity: level.evaluation.accuracy for level in reversed(levels) if level.variant_id in cascades
        }
        floor = accuracy_floor(configured_floor, dense.evaluation.accuracy)
        return cls(store.root / POLICY, Policy(accuracy_floor=floor), dense.evaluation.accuracy, cascaded)

    async def change(self, members: Any) -> Policy:
        """Set some members, on disk first; return the policy that holds from now on.

        Raises:
            Invalid: a member that cannot be valid, contradicts another, a floor above the dense model, or a cascade
                that the ladder does not have.
            NotReady: the file cannot be written; nothing has changed.
        """
        async with self._lock:
            policy = self.policy.changed(members)
            if policy.accuracy_floor > self._dense_accuracy:
                raise Invalid(
                    f"accuracy_floor {policy.accuracy_floor:.4f} is above the accuracy of the dense model, "
                    f"{self._dense_accuracy:.4f}: nothing could be served; choose a lower one."
                )
            self._check_cascade(policy)
            members = {name: policy.as_dict()[name] for name in (*self._set, *members)}
            try:
                await asyncio.to_thread(self._write, members)
            except OSError as error:
                raise NotReady(f"Nothing was changed: {self._path} could not be written ({error}).") from error
            self._set, self.policy = members, policy
            logger.info("policy=%s", policy.as_dict())
            return policy

    def _check_cascade(self, policy: Policy) -> None:
        """Raise if the policy's cascade begins with a level that has none, or that may not answer alone."""
        if policy.cascade is None:
            return
        sparsity = policy.cascade.sparsity
        if sparsity not in self._cascaded:
            known = ", ".join(f"{level:g}" for level in sorted(self._cascaded)) or "none"
            raise Invalid(f"no cascade begins at sparsity {sparsity:g}; levels of the ladder that have one: {known}.")
        if (accuracy := self._cascaded[sparsity]) < policy.accuracy_floor:
            raise Invalid(
                f"the cascade's level {sparsity:g} answers alone where there is no time for the dense model, and "
                f"{below_floor(accuracy, policy.accuracy_floor)}; choose a denser one."
            )

    def _write(self, members: dict[str, Any]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self._path, with_checksum("policy", members))

    def _read(self) -> dict[str, Any]:
        try:
            return checked(json.loads(self._path.read_bytes()), "policy", dict)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StateFileError(f"{self._path} cannot be read: {error.strerror}; mend its permissions") from error
        except Altered as error:
            raise self._damaged(str(error)) from None
        except (ValueError, KeyError, TypeError):
            raise self._damaged("is not the JSON that was written") from None

    def _damaged(self, what: str) -> StateDamaged:
        return StateDamaged(f"{self._path} {what}; delete it to go back to the policy of the settings")
