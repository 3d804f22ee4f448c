import json
import re
from collections import Counter
from typing import Any

import pytest

from deploy.grafana.make_dashboard import rendered
from tests.deploy.dashboards import DASHBOARD, load_dashboard, queries, substituted


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    return load_dashboard()


def test_the_committed_dashboard_is_what_the_script_makes() -> None:
    assert DASHBOARD.read_text(encoding="utf-8") == rendered()


def test_a_dashboard_can_be_imported_anywhere(dashboard: dict[str, Any]) -> None:
    assert "id" not in dashboard
    assert dashboard["uid"] == "sparsedial"
    assert dashboard["schemaVersion"] >= 36


def test_the_data_source_is_a_variable_everywhere(dashboard: dict[str, Any]) -> None:
    assert dashboard["templating"]["list"][0]["type"] == "datasource"
    found = re.findall(r'"uid": "([^"]*)"', json.dumps(dashboard))
    assert set(found) == {"sparsedial", "${datasource}"}


def test_rates_follow_the_scrape_interval() -> None:
    windows = [window for query in queries() for window in re.findall(r"\[([^\]]+)\]", query.expr)]
    assert Counter(windows)["$__rate_interval"] > 5
    # The annotation must see a change once, in a window of four scrapes.
    assert set(windows) == {"$__rate_interval", "$__range", "20s"}


def test_no_variable_is_left_after_substitution() -> None:
    assert not [query for query in queries() if "$" in substituted(query.expr, window="1m")]


@pytest.mark.parametrize(
    ("title", "metrics"),
    [
        ("Latency", {"request_duration_seconds_bucket"}),
        ("Throughput by outcome", {"requests_total"}),
        (
            "Accuracy of the live variant",
            {"accuracy_ratio", "accuracy_low_ratio", "accuracy_high_ratio", "accuracy_floor_ratio"},
        ),
        ("Sparsity and generation", {"requested_sparsity_ratio", "achieved_sparsity_ratio", "generation"}),
        ("Agreement on live traffic", {"online_agreement_ratio", "online_accuracy_ratio"}),
        ("Flips by label", {"shadow_label_texts_total"}),
        (
            "Governor: level",
            {"governor_wanted_level", "governor_active", "requested_sparsity_ratio"},
        ),
        ("Governor: load", {"governor_utilisation_ratio"}),
        ("Governor: waiting", {"governor_queue_seconds", "slo_p99_seconds"}),
        ("Governor: moves and reasons", {"governor_moves_total", "governor_ticks_total"}),
        ("Cascades: who answered", {"cascade_texts_total"}),
        ("Cascades: not escalated", {"cascade_texts_total"}),
        (
            "Cascades: agreement on live traffic",
            {"cascade_online_agreement_ratio", "cascade_agreement_ratio", "cascade_agreement_floor_ratio"},
        ),
        ("Cascades: the policy's own", {"cascade_wanted", "cascade_active"}),
        ("Stages, p99", {"stage_duration_seconds_bucket"}),
        ("Ladder", {"level_accuracy_ratio", "level_latency_seconds", "level_items_per_second"}),
        ("Swaps by outcome", {"swaps_total"}),
        ("Phases of a swap", {"swap_phase_duration_seconds_sum"}),
    ],
)
def test_the_dashboard_shows_what_the_dial_costs_and_buys(title: str, metrics: set[str]) -> None:
    shown = {
        name for query in queries() if query.panel == title for name in re.findall(r"sparsedial_(\w+)", query.expr)
    }
    assert metrics <= shown


def test_the_four_panels_of_the_dial_share_one_time_axis(dashboard: dict[str, Any]) -> None:
    titles = ["Latency", "Throughput by outcome", "Accuracy of the live variant", "Sparsity and generation"]
    places = [panel["gridPos"] for panel in dashboard["panels"] if panel["title"] in titles]
    assert [(place["x"], place["w"]) for place in places] == [(0, 24)] * 4
    assert dashboard["graphTooltip"] == 1


def test_no_two_panels_overlap(dashboard: dict[str, Any]) -> None:
    cells = Counter(
        (x, y)
        for place in (panel["gridPos"] for panel in dashboard["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    )
    assert set(cells.values()) == {1}
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
