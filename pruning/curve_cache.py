"""Cost curves on disk: solved once per calibration and scorer, a small JSON document each.

<root>/curves/<calibration key>-<scorer>-<versions>.json
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from pruning.curves import CURVES_VERSION
from pruning.errors import CacheError
from pruning.files import digest_of, write_json
from pruning.masks.structures import CostCurve, Kind
from pruning.scores import Scorer

REMEDY = "delete it, and the next cut solves it again"


class CurveCache:
    """Cost curves under one root folder."""

    def __init__(self, root: Path) -> None:
        """Use ``root``; it is made when the first curves are written."""
        self.folder = root / "curves"

    def has(self, calibration_digest: str, scorer: Scorer) -> bool:
        """Tell whether the curves of this calibration and scorer are there."""
        return self._path(calibration_digest, scorer).is_file()

    def get_or_solve(
        self, calibration_digest: str, scorer: Scorer, solve: Callable[[], Sequence[CostCurve]]
    ) -> list[CostCurve]:
        """Return the curves of this calibration and scorer, from disk or solved and written now.

        Raises:
            CacheError: the stored curves were altered, or new ones cannot be written.
        """
        path = self._path(calibration_digest, scorer)
        if path.is_file():
            return _read(path)
        curves = list(solve())
        values = [_as_plain(curve) for curve in curves]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, {"curves": values, "sha256": digest_of(values)})
        except OSError as error:
            raise CacheError(f"{path} could not be written: {error}; free space or choose another --store") from error
        return curves

    def _path(self, calibration_digest: str, scorer: Scorer) -> Path:
        return self.folder / f"{calibration_digest}-{scorer.name}-{scorer.version}.{CURVES_VERSION}.json"


def _as_plain(curve: CostCurve) -> dict[str, Any]:
    return {
        "layer": curve.layer,
        "kind": curve.kind.value,
        "order": curve.order.tolist(),
        "step": curve.step,
        "costs": list(curve.costs),
    }


def _read(path: Path) -> list[CostCurve]:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        values, checksum = list(stored["curves"]), str(stored["sha256"])
        actual = digest_of(values)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CacheError(f"{path} is damaged ({error}); {REMEDY}") from error
    if actual != checksum:
        raise CacheError(f"{path} does not match its checksum {checksum[:12]}; {REMEDY}")
    return [
        CostCurve(
            layer=curve["layer"],
            kind=Kind(curve["kind"]),
            order=torch.tensor(curve["order"]),
            step=curve["step"],
            costs=tuple(curve["costs"]),
        )
        for curve in values
    ]
