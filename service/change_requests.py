"""What ``PUT /admin/sparsity`` may ask for, read and described."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from pruning.errors import SpecError
from pruning.spec import MOST_ROUNDS, Pattern, Precision, PruneSpec, Recover, Structures
from pruning.spec import Scope as WeightScope
from service.errors import BadRequest, Invalid
from service.problems import shown

MAX_BODY_BYTES = 65_536
"""Of what an operator sends."""
CANARY = "canary"
"""The one member of a change that is none of its spec: how it is tried."""


def parse_spec(body: Any, scorers: Collection[str], usual: Mapping[str, Any]) -> PruneSpec:
    """Return the spec that a ``PUT /sparsity`` body asks for, the ``usual`` one where it says nothing.

    Raises:
        Invalid: not an object, a key too many or too few, or a value out of its range; names value and range.
    """
    if not isinstance(body, dict):
        raise Invalid(f'The body must be an object such as {{"sparsity": 0.5}}; got {shown(body)}.')
    if "sparsity" not in body:
        raise Invalid('"sparsity" is missing: a number in [0, 1), the share of encoder weights to remove.')
    if body.get("pattern", usual.get("pattern")) != usual.get("pattern"):
        usual = {name: value for name, value in usual.items() if name not in ("recover", "rounds")}
    if body.get("structures") not in (None, Structures.HEADS.value):
        usual = {name: value for name, value in usual.items() if name != "rounds"}
    try:
        spec = PruneSpec.from_dict({**usual, **body})
    except SpecError as error:
        raise Invalid(f"{error}.") from error
    if spec.scorer not in scorers:
        raise Invalid(f"unknown scorer {shown(spec.scorer)}; known: {', '.join(sorted(scorers))}.")
    return spec


def canary_fraction(body: Any) -> float | None:
    """Return the share of requests on which a change shall be tried first; None leaves it to the policy.

    Raises:
        Invalid: it is neither a share in [0, 1] nor ``false``.
    """
    share = body.get(CANARY) if isinstance(body, dict) else None
    if share is None:
        return None
    if share is False:
        return 0.0
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0.0 <= share <= 1.0:
        raise Invalid(f'"{CANARY}" must be false or a share of the requests in [0, 1]; got {shown(share)}.')
    return float(share)


def without_canary(body: Any) -> Any:
    """Return the body without its one member that is none of the spec."""
    return {name: value for name, value in body.items() if name != CANARY} if isinstance(body, dict) else body


def expected_generation(if_match: str | None) -> int | None:
    """Return the generation that an ``If-Match`` header names: the ``etag`` of ``GET /sparsity``; None for any.

    Raises:
        BadRequest: it is no such etag.
    """
    named = _named(if_match, r"\d{1,18}", 'GET /admin/sparsity, such as "7"')
    return None if named is None else int(named)


def expected_policy(if_match: str | None) -> str | None:
    """Return the policy that an ``If-Match`` header names: the ``etag`` of ``GET /policy``; None for any.

    Raises:
        BadRequest: it is no such etag.
    """
    return _named(if_match, r"[0-9a-f]{16}", "GET /admin/policy")


def _named(if_match: str | None, form: str, whence: str) -> str | None:
    """Return what an ``If-Match`` header names, which must have this ``form``; None where it lets anything be."""
    if if_match is None or if_match.strip() == "*":
        return None
    found = re.fullmatch(f'"({form})"', if_match.strip())
    if found is None:
        raise BadRequest(f"If-Match must be the etag of {whence}; got {shown(if_match)}.")
    return found[1]


def change_schema(scorers: Collection[str], usual: Mapping[str, Any]) -> dict[str, Any]:
    """Return the OpenAPI words for the body, which ``read_json`` reads in place of FastAPI."""
    taken = PruneSpec.from_dict({"sparsity": 0.0, **usual}).as_dict()
    properties = {
        "sparsity": {"type": "number", "minimum": 0, "exclusiveMaximum": 1},
        "pattern": {"enum": [pattern.value for pattern in Pattern], "default": taken["pattern"]},
        "scorer": {"enum": sorted(scorers), "default": taken["scorer"]},
        "recover": {"enum": [recover.value for recover in Recover]},
        "scope": {"enum": [scope.value for scope in WeightScope]},
        "structures": {"enum": [structures.value for structures in Structures], "default": Structures.HEADS.value},
        "rounds": {"type": "integer", "minimum": 1, "maximum": MOST_ROUNDS, "default": usual.get("rounds", 1)},
        "precision": {"enum": [precision.value for precision in Precision], "default": taken["precision"]},
        CANARY: {"anyOf": [{"const": False}, {"type": "number", "minimum": 0, "maximum": 1}]},
    }
    schema = {"type": "object", "properties": properties, "required": ["sparsity"], "additionalProperties": False}
    content = {"application/json": {"schema": schema, "example": {"sparsity": 0.5}}}
    return {"requestBody": {"required": True, "content": content}}
