"""Make the Grafana dashboard: plain dictionaries in, ``dashboards/sparsedial.json`` out.

    python -m deploy.grafana.make_dashboard

The JSON is committed, so that nobody needs this script to use it; a test compares the two.
"""

import json
from pathlib import Path
from typing import Any

from deploy.grafana.live_rows import cascade_panels, governor_panels, quality_panels
from deploy.grafana.panels import DATASOURCE, placed
from deploy.grafana.rows import dial_panels, ladder_panel, now_panels, stage_panels, swap_panels

OUTPUT = Path(__file__).parent / "dashboards" / "sparsedial.json"


def variables() -> list[dict[str, Any]]:
    """Return the data source and the replicas to choose from."""
    return [
        {"name": "datasource", "type": "datasource", "label": "Data source", "query": "prometheus", "refresh": 1},
        {
            "name": "replica",
            "type": "query",
            "label": "Replica",
            "datasource": DATASOURCE,
            "query": {"query": "label_values(sparsedial_generation, replica)", "refId": "replica"},
            "refresh": 2,
            "includeAll": True,
            "allValue": ".*",
            "multi": True,
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        },
    ]


def swap_annotation() -> dict[str, Any]:
    """Return a mark on every graph wherever the committed generation changes, with its number."""
    return {
        "name": "Swaps",
        "datasource": DATASOURCE,
        "enable": True,
        "iconColor": "purple",
        "expr": 'count_values("generation", max(sparsedial_controller_generation))'
        " and on () (max(changes(sparsedial_controller_generation[20s])) > 0)",
        "step": "5s",
        "titleFormat": "generation {{generation}}",
    }


def dashboard() -> dict[str, Any]:
    """Return the whole dashboard."""
    return {
        "uid": "sparsedial",
        "title": "SparseDial",
        "description": "Latency, throughput, accuracy and sparsity of one service, on one time axis.",
        "tags": ["sparsedial"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "5s",
        "time": {"from": "now-15m", "to": "now"},
        "timezone": "browser",
        "templating": {"list": variables()},
        "annotations": {"list": [swap_annotation()]},
        "panels": placed(
            [
                ("Now", 4, 6, now_panels()),
                ("The dial", 7, 1, dial_panels()),
                ("Quality on live traffic", 7, 2, quality_panels()),
                ("Governor", 7, 2, governor_panels()),
                ("Cascades", 7, 2, cascade_panels()),
                ("Where the time goes", 7, 2, stage_panels()),
                ("Ladder", 8, 1, [ladder_panel()]),
                ("Swaps", 7, 3, swap_panels()),
            ]
        ),
    }


def rendered() -> str:
    """Return the committed form."""
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    OUTPUT.write_text(rendered(), encoding="utf-8")
