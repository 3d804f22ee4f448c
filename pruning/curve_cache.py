"""Cost curves on disk: solved once per calibration, scorer and kind of structure, a small JSON document each.

<root>/curves/<calibration key>-<scorer>-<versions>.json          heads and neurons
<root>/curves/<calibration key>-<scorer>-<versions>-units.json    heads with units inside them, and neurons
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pruning.checked_json import read_checked_json, with_checksum
from pruning.cost import HeadDims
from pruning.curves import CURVES_VERSION
from pruning.errors import CacheError
from pruning.files import write_json
from pruning.masks.attention_curve import AttentionCurve, AttentionSize
from pruning.masks.structures import CostCurve, Curve, Kind
from pruning.scores import Scorer
from pruning.unit_curves import UNIT_CURVES_VERSION
from pruning.unit_pass import UNIT_PASS_VERSION

REMEDY = "delete it, and the next cut solves it again"


class CurveCache:
    """Cost curves under one root folder."""

    def __init__(self, root: Path) -> None:
        """Use ``root``; it is made when the first curves are written."""
        self.folder = root / "curves"

    def has(self, calibration_digest: str, scorer: Scorer, *, inside_heads: bool = False) -> bool:
        """Tell whether the curves of this calibration and scorer are there."""
        return self._path(calibration_digest, scorer, inside_heads).is_file()

    def get_or_solve(
        self,
        calibration_digest: str,
        scorer: Scorer,
        solve: Callable[[], Sequence[Curve]],
        *,
        inside_heads: bool = False,
    ) -> list[Curve]:
        """Return the curves of this calibration and scorer, from disk or solved and written now.

        Raises:
            CacheError: the stored curves were altered, or new ones cannot be written.
        """
        path = self._path(calibration_digest, scorer, inside_heads)
        if path.is_file():
            return [_from_plain(curve) for curve in read_checked_json(path, "curves", list, CacheError, REMEDY)]
        curves = list(solve())
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, with_checksum("curves", [_as_plain(curve) for curve in curves]))
        except OSError as error:
            raise CacheError(f"{path} could not be written: {error}; free space or choose another --store") from error
        return curves

    def _path(self, calibration_digest: str, scorer: Scorer, inside_heads: bool) -> Path:
        name = f"{calibration_digest}-{scorer.name}-{scorer.version}.{CURVES_VERSION}"
        if inside_heads:
            name += f".{UNIT_PASS_VERSION}.{UNIT_CURVES_VERSION}-units"
        return self.folder / f"{name}.json"


def _as_plain(curve: Curve) -> dict[str, Any]:
    if isinstance(curve, AttentionCurve):
        return {
            "layer": curve.layer,
            "head_order": curve.head_order.tolist(),
            "qk_order": curve.qk_order_NH.tolist(),
            "vo_order": curve.vo_order_NH.tolist(),
            "sizes": [[size.heads, *size.dims] for size in curve.sizes],
            "costs": list(curve.costs),
        }
    assert isinstance(curve, CostCurve)  # there are two kinds
    return {
        "layer": curve.layer,
        "kind": curve.kind.value,
        "order": curve.order.tolist(),
        "step": curve.step,
        "costs": list(curve.costs),
    }


def _from_plain(values: Mapping[str, Any]) -> Curve:
    if "sizes" in values:
        return AttentionCurve(
            layer=values["layer"],
            head_order=torch.tensor(values["head_order"]),
            qk_order_NH=torch.tensor(values["qk_order"]),
            vo_order_NH=torch.tensor(values["vo_order"]),
            sizes=tuple(AttentionSize(heads, HeadDims(qk, vo)) for heads, qk, vo in values["sizes"]),
            costs=tuple(values["costs"]),
        )
    return CostCurve(
        layer=values["layer"],
        kind=Kind(values["kind"]),
        order=torch.tensor(values["order"]),
        step=values["step"],
        costs=tuple(values["costs"]),
    )
