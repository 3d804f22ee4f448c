"""The variant store: immutable, content-addressed folders of weights and manifest, written aside and renamed.

<root>/variants/<variant id>/weights.safetensors    encoder layers only; the rest is the base model's
manifest.json          what it is, what it costs, what it is worth, and checksums
"""

import json
import logging
import os
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pruning.cost import Cost, HeadDims
from pruning.errors import ChecksumError, StoreError
from pruning.evaluation import Evaluation
from pruning.files import digest_of, new_folder, remove_folder, sha256_of, write_json
from pruning.spec import PruneSpec
from pruning.timing import Speed

WEIGHTS, MANIFEST = "weights.safetensors", "manifest.json"
FORMAT = 2

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What one variant is, costs and is worth."""

    variant_id: str
    """16 hex digits, a digest of base model, spec, calibration and evaluation rows."""
    spec: PruneSpec
    achieved_sparsity: float
    base_digest: str
    heads: list[int]
    """Heads kept per layer."""
    neurons: list[int]
    """Neurons kept per layer."""
    head_dims: list[HeadDims] | None = None
    """Dimensions kept per head of each layer: (of queries and keys, of values); None: all heads are whole."""
    cost: Cost
    evaluation: Evaluation
    speed: Speed
    """Measured while it was built; ``frontier`` measures all levels side by side."""
    build_seconds: dict[str, float]
    """Seconds that each step of the build took."""
    probe_logits: list[list[float]] = field(default_factory=list)
    """Its answers to ``pruning.probes`` when it was built; none of heads that answer token by token."""
    weights_sha256: str = ""
    """Filled in by the store."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        values = asdict(self) | {"spec": self.spec.as_dict(), "format": FORMAT}
        return {name: value for name, value in values.items() if name != "head_dims" or value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild from ``as_dict``.

        Raises:
            StoreError: it was written by another version of this program.
        """
        if values.get("format") != FORMAT:
            raise StoreError(
                f"variant {values.get('variant_id')} has format {values.get('format')!r}, this version reads {FORMAT}; "
                "remove the store, or give another --store: whatever was in it is made again"
            )
        plain = {name: value for name, value in values.items() if name != "format"}
        dims = values.get("head_dims")
        return cls(
            **plain
            | {
                "head_dims": None if dims is None else [HeadDims(*one) for one in dims],
                "spec": PruneSpec.from_dict(values["spec"]),
                "cost": Cost(**values["cost"]),
                "evaluation": Evaluation.from_dict(values["evaluation"]),
                "speed": Speed(**values["speed"]),
            }
        )


class VariantStore:
    """Variants under one root folder. Readers verify checksums; nothing altered is ever returned."""

    def __init__(self, root: Path) -> None:
        """Use ``root``; it is made when the first variant is written."""
        self.root = root
        self.folder = root / "variants"

    def __contains__(self, variant_id: object) -> bool:
        """Tell whether the variant's folder is there."""
        return (self.folder / str(variant_id) / MANIFEST).is_file()

    def put(self, layers: Mapping[str, Tensor], manifest: Manifest) -> Manifest:
        """Write a variant, or keep the one of this id that is there; return its manifest as stored.

        Raises:
            StoreError: the folder cannot be written (read-only, disk full); nothing half-written is left.
        """
        try:
            with new_folder(self.folder / manifest.variant_id, MANIFEST) as aside:
                save_file({name: tensor.contiguous() for name, tensor in layers.items()}, aside / WEIGHTS)
                values = manifest.as_dict() | {"weights_sha256": sha256_of(aside / WEIGHTS)}
                write_json(aside / MANIFEST, values | {"manifest_sha256": digest_of(values)})
        except (OSError, SafetensorError) as error:
            raise StoreError(
                f"variant {manifest.variant_id} could not be written to {self.folder}: {error}; "
                "free space or choose a writable --store"
            ) from error
        return self.manifest(manifest.variant_id)

    def manifest(self, variant_id: str) -> Manifest:
        """Return a variant's manifest.

        Raises:
            StoreError: there is no such variant.
            ChecksumError: the manifest was altered or cut short.
        """
        path = self.folder / variant_id / MANIFEST
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            claimed = str(values.pop("manifest_sha256"))
            actual = digest_of(values)
        except FileNotFoundError:
            raise StoreError(
                f"no variant {variant_id} in {self.folder}; build it with 'sparsedial prune' or 'sparsedial prepare', "
                "or ask for one that 'sparsedial frontier' lists"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ChecksumError(f"{path} is damaged (not the JSON that was written); {_remedy(variant_id)}") from None
        if actual != claimed:
            raise ChecksumError(f"{path} does not match its checksum {claimed[:12]}; {_remedy(variant_id)}")
        return Manifest.from_dict(values)

    def verify(self, variant_id: str) -> Manifest:
        """Return a variant's manifest once its weights are known to be the ones that were written.

        Raises:
            StoreError: there is no such variant.
            ChecksumError: a file was altered or cut short; names it and its checksum.
        """
        manifest = self.manifest(variant_id)
        path = self.folder / variant_id / WEIGHTS
        try:
            actual = sha256_of(path)
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error}; {_remedy(variant_id)}") from error
        if actual != manifest.weights_sha256:
            raise ChecksumError(
                f"{path} has checksum {actual[:12]}, its manifest says {manifest.weights_sha256[:12]}; "
                f"{_remedy(variant_id)}"
            )
        return manifest

    def load(self, variant_id: str) -> tuple[Manifest, dict[str, Tensor]]:
        """Return manifest and encoder layers, verified; raises what ``verify`` raises."""
        manifest = self.verify(variant_id)
        return manifest, load_file(self.folder / variant_id / WEIGHTS)

    def touch(self, variant_id: str) -> None:
        """Count a variant among the newest again, for it was asked for; nothing happens where it is not there."""
        now = time.time_ns()  # finer than the clock of a file system, by which it might look as old as the last one
        with suppress(OSError):
            os.utime(self.folder / variant_id / MANIFEST, ns=(now, now))

    def keep_newest(self, count: int, in_use: Collection[str]) -> Sequence[str]:
        """Remove all variants but those ``in_use`` and the ``count`` that were stored or touched last.

        Returns:
            The ids of those that went; one that cannot be removed stays.
        """
        ages = {}
        for path in self.folder.glob(f"*/{MANIFEST}"):
            if not path.parent.name.startswith(".") and path.parent.name not in in_use:
                with suppress(OSError):
                    ages[path.parent] = path.stat().st_mtime_ns
        gone = []
        for folder in sorted(ages, key=lambda folder: ages[folder], reverse=True)[count:]:
            try:
                remove_folder(folder)
            except OSError as error:
                logger.warning("variant %s could not be removed: %s", folder.name, error)
            else:
                gone.append(folder.name)
        return gone

    def list(self) -> list[Manifest]:
        """Return every readable manifest, least sparse first; others are logged and left out."""
        manifests = []
        for path in sorted(self.folder.glob(f"*/{MANIFEST}")):
            if path.parent.name.startswith("."):
                continue
            try:
                manifests.append(self.manifest(path.parent.name))
            except StoreError as error:
                logger.warning("variant left out: %s", error)
        return sorted(manifests, key=lambda m: (m.spec.sparsity, m.spec.pattern, m.spec.scorer, m.variant_id))


def _remedy(variant_id: str) -> str:
    return f"delete the folder of variant {variant_id} and build it again"
