"""``POST /admin/plan``: what a level would be worth and cost, or which level keeps within bounds. Nothing changes."""

import asyncio
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from fastapi import APIRouter, Request

from service.bodies import read_json
from service.change_requests import MAX_BODY_BYTES, parse_spec
from service.controller import VariantController
from service.errors import Invalid
from service.plan import best_level, plan_level
from service.problems import shown

BOUNDS = ("p99_ms", "accuracy")


def plan_routes(
    controller: Callable[[], VariantController],
    frontier: Callable[[], list[dict[str, Any]]],
    scorers: Collection[str],
    usual: Mapping[str, str],
) -> APIRouter:
    """Return the router; its arguments are those of ``build_admin_api``."""
    router = APIRouter(tags=["read"])

    @router.post("/plan", openapi_extra=_schema())
    async def post_plan(request: Request) -> dict[str, Any]:
        """Predict what a sparsity would be worth and cost, or name the best level within bounds. Nothing changes."""
        body = await read_json(request, MAX_BODY_BYTES)
        wanted = _bounds(body)
        spec = parse_spec(body, scorers, usual) if wanted is None else None
        rows = await asyncio.to_thread(frontier)
        facts = controller().view.facts([row["variant"] for row in rows])
        if spec is not None:
            return plan_level(spec, _judged_alike(rows, facts.resident), facts)
        assert wanted is not None
        return best_level(*wanted, [row for row in rows if row["variant"] in facts.resident], facts)

    return router


def _judged_alike(rows: list[dict[str, Any]], resident: Collection[str]) -> list[dict[str, Any]]:
    """Return the rows that were judged on the rows of the loaded levels, these last: of equals the last one counts."""
    digests = {row["rows_digest"] for row in rows if row["variant"] in resident}
    alike = [row for row in rows if row["rows_digest"] in digests]
    return sorted(alike, key=lambda row: row["variant"] in resident)


def _bounds(body: Any) -> tuple[float | None, float | None] | None:
    """Return (p99_ms, accuracy) of a body that asks for the best level; None for one that names a sparsity.

    Raises:
        Invalid: a bound that cannot be, beside anything else, or not one of either.
    """
    if not isinstance(body, Mapping) or not any(name in body for name in BOUNDS):
        return None
    others = sorted(str(name) for name in body if name not in BOUNDS)
    if others:
        raise Invalid(f"A plan names a sparsity or bounds (p99_ms, accuracy), not both; beside them: {shown(others)}.")
    p99_ms, accuracy = body.get("p99_ms"), body.get("accuracy")
    if p99_ms is None and accuracy is None:
        raise Invalid("A plan needs a number in p99_ms or accuracy.")
    return _number("p99_ms", p99_ms, math.inf), _number("accuracy", accuracy, 1.0)


def _number(name: str, value: Any, high: float) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 < value <= high or value == math.inf:
        raise Invalid(f"{name} must be a number above 0" + (f", {high:g} at most" if high < math.inf else "")
                      + f"; got {shown(value)}.")  # fmt: skip
    return float(value)


def _schema() -> dict[str, Any]:
    """Return the OpenAPI words for both kinds of body."""
    examples = {"a level": {"value": {"sparsity": 0.6}}, "bounds": {"value": {"p99_ms": 20, "accuracy": 0.88}}}
    content = {"application/json": {"schema": {"type": "object"}, "examples": examples}}
    return {"requestBody": {"required": True, "content": content}}
