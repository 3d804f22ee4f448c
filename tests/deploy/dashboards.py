"""The queries of the committed dashboard, as tests need them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "sparsedial.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    panel: str
    expr: str


def load_dashboard() -> dict[str, Any]:
    dashboard: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return dashboard


def queries() -> Iterator[Query]:
    """Yield every query of every panel and annotation."""
    dashboard = load_dashboard()
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield Query(panel=panel["title"], expr=target["expr"])
    for annotation in dashboard["annotations"]["list"]:
        yield Query(panel=f"annotation {annotation['name']}", expr=annotation["expr"])


def substituted(expr: str, *, window: str) -> str:
    """Return a query as Grafana would send it with every replica chosen and ``window`` for both ranges."""
    for variable, value in {"$__rate_interval": window, "$__range": window, "$replica": ".*"}.items():
        expr = expr.replace(variable, value)
    return expr
