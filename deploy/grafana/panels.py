"""Building blocks of a Grafana dashboard: queries, panels and their places, as plain dictionaries."""

from typing import Any

WIDTH = 24
"""Columns of Grafana's grid."""

Panel = dict[str, Any]
Target = dict[str, Any]

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
REPLICA = '{replica=~"$replica"}'


def quantile(q: float, metric: str, by: str = "", labels: str = REPLICA, window: str = "$__rate_interval") -> str:
    """Return the expression of a quantile over all replicas of a histogram; ``by`` is one more label to keep."""
    kept = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({kept}) (rate({metric}_bucket{labels}[{window}])))"


def target(expr: str, legend: str, *, instant: bool = False) -> Target:
    """Return one query of a panel; ``panel`` gives it its letter."""
    query: Target = {"datasource": DATASOURCE, "expr": expr, "legendFormat": legend, "editorMode": "code"}
    if instant:
        return {**query, "instant": True, "range": False, "format": "table"}
    return {**query, "instant": False, "range": True}


def override(series: str, **properties: Any) -> dict[str, Any]:
    """Return how series whose name matches a regular expression differ from the others of their panel."""
    listed = [{"id": key.replace("__", "."), "value": value} for key, value in properties.items()]
    return {"matcher": {"id": "byRegexp", "options": series}, "properties": listed}


def panel(
    kind: str,
    title: str,
    description: str,
    targets: list[Target],
    *,
    unit: str = "short",
    defaults: dict[str, Any] | None = None,
    overrides: list[dict[str, Any]] | None = None,
    options: dict[str, Any] | None = None,
    transformations: list[dict[str, Any]] | None = None,
) -> Panel:
    """Return a panel without a place; ``placed`` gives it one."""
    lettered = [{**query, "refId": chr(ord("A") + number)} for number, query in enumerate(targets)]
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "targets": lettered,
        "fieldConfig": {"defaults": {"unit": unit, **(defaults or {})}, "overrides": overrides or []},
        "options": options or {},
        "transformations": transformations or [],
    }


def series(
    title: str,
    description: str,
    targets: list[Target],
    *,
    unit: str,
    custom: dict[str, Any] | None = None,
    overrides: list[dict[str, Any]] | None = None,
    **defaults: Any,
) -> Panel:
    """Return a time series with its figures beside it."""
    drawn = {"lineWidth": 1, "fillOpacity": 0, "showPoints": "never", "spanNulls": False, **(custom or {})}
    legend = {"displayMode": "table", "placement": "right", "showLegend": True, "calcs": ["lastNotNull", "max"]}
    return panel(
        "timeseries",
        title,
        description,
        targets,
        unit=unit,
        defaults={"custom": drawn, **defaults},
        overrides=overrides,
        options={"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}},
    )


def stat(title: str, description: str, expr: str, *, unit: str, decimals: int) -> Panel:
    """Return one large number of now."""
    return panel(
        "stat",
        title,
        description,
        [target(expr, title)],
        unit=unit,
        defaults={"decimals": decimals},
        options={"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "area"},
    )


def placed(rows: list[tuple[str, int, int, list[Panel]]]) -> list[Panel]:
    """Return the panels of titled rows with their places; a row is (title, height, panels side by side, panels)."""
    result: list[Panel] = []
    top = 0
    for title, height, beside, panels in rows:
        grid = {"h": 1, "w": WIDTH, "x": 0, "y": top}
        result.append({"type": "row", "title": title, "collapsed": False, "gridPos": grid, "panels": []})
        top += 1
        width = WIDTH // beside
        for number, item in enumerate(panels):
            place = {"h": height, "w": width, "x": number % beside * width, "y": top + number // beside * height}
            result.append({**item, "gridPos": place})
        top += -(-len(panels) // beside) * height
    return [{"id": number, **item} for number, item in enumerate(result, start=1)]
