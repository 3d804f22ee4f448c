"""What each row of the dashboard asks of Prometheus, and how it shows it."""

from deploy.grafana.panels import REPLICA, Panel, override, panel, quantile, series, stat, target

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


def now_panels() -> list[Panel]:
    """Return the numbers of this moment."""
    return [
        stat(
            "p99",
            "Arrival to end of the answer, over all replicas.",
            quantile(0.99, "sparsedial_request_duration_seconds"),
            unit="s",
            decimals=1,
        ),
        stat(
            "Requests",
            "All outcomes.",
            f"sum(rate(sparsedial_requests_total{REPLICA}[$__rate_interval]))",
            unit="reqps",
            decimals=1,
        ),
        stat(
            "Accuracy",
            "Of the live variant on its evaluation rows.",
            f"min(sparsedial_accuracy_ratio{REPLICA})",
            unit="percentunit",
            decimals=1,
        ),
        stat(
            "Sparsity",
            "Share of the prunable weights really removed.",
            f"max(sparsedial_achieved_sparsity_ratio{REPLICA})",
            unit="percentunit",
            decimals=1,
        ),
        stat("Generation", "Committed last.", "max(sparsedial_controller_generation)", unit="none", decimals=0),
        stat("Replicas", "Live, by their leases.", "max(sparsedial_controller_replicas)", unit="none", decimals=0),
    ]


def dial_panels() -> list[Panel]:
    """Return what the dial costs and buys: four panels, one under the other, so that one time axis serves all."""
    durations = "sparsedial_request_duration_seconds"
    return [
        series(
            "Latency",
            "Arrival to end of the answer, over all replicas.",
            [target(quantile(q, durations), name) for name, q in QUANTILES.items()],
            unit="s",
            min=0,
        ),
        series(
            "Throughput by outcome",
            "overloaded: refused with 429 because the queue was full.",
            [target(f"sum by (outcome) (rate(sparsedial_requests_total{REPLICA}[$__rate_interval]))", "{{outcome}}")],
            unit="reqps",
            custom={"stacking": {"mode": "normal"}, "fillOpacity": 30},
            min=0,
        ),
        series(
            "Accuracy of the live variant",
            "On its evaluation rows, with the 95 % interval, beside the floor below which nothing is promoted.",
            [
                target(f"max(sparsedial_accuracy_high_ratio{REPLICA})", "interval, high"),
                target(f"min(sparsedial_accuracy_ratio{REPLICA})", "accuracy"),
                target(f"min(sparsedial_accuracy_low_ratio{REPLICA})", "interval, low"),
                target("max(sparsedial_accuracy_floor_ratio)", "floor"),
                target(f"min(sparsedial_agreement_ratio{REPLICA})", "agreement with dense"),
            ],
            unit="percentunit",
            custom={"lineInterpolation": "stepAfter"},
            overrides=[
                override("interval, high", custom__fillBelowTo="interval, low", custom__lineWidth=0),
                override("interval, low", custom__lineWidth=0),
                override(
                    "floor",
                    color={"mode": "fixed", "fixedColor": "red"},
                    custom__lineStyle={"fill": "dash", "dash": [8, 6]},
                ),
            ],
            max=1,
        ),
        series(
            "Sparsity and generation",
            "Sparsity as asked for and as achieved on the left axis, each replica's generation on the right one.",
            [
                target(f"max(sparsedial_requested_sparsity_ratio{REPLICA})", "sparsity, requested"),
                target(f"max(sparsedial_achieved_sparsity_ratio{REPLICA})", "sparsity, achieved"),
                target(f"max by (replica) (sparsedial_generation{REPLICA})", "generation {{replica}}"),
            ],
            unit="percentunit",
            custom={"lineInterpolation": "stepAfter"},
            overrides=[override("generation.*", unit="none", custom__axisPlacement="right", decimals=0)],
            min=0,
        ),
    ]


def stage_panels() -> list[Panel]:
    """Return where the time goes and how full the batches are."""
    stages = "sparsedial_stage_duration_seconds"
    batch_mean = "sum(rate({0}_sum{1}[$__rate_interval])) / sum(rate({0}_count{1}[$__rate_interval]))"
    return [
        series(
            "Stages, median",
            "A long queue asks for sparsity or replicas; long inference is the model itself.",
            [target(quantile(0.5, stages, "stage"), "{{stage}}")],
            unit="s",
            min=0,
        ),
        series("Stages, p99", "As before.", [target(quantile(0.99, stages, "stage"), "{{stage}}")], unit="s", min=0),
        series(
            "Batches",
            "What runs together in one forward pass, on average.",
            [
                target(batch_mean.format("sparsedial_batch_tokens", REPLICA), "tokens"),
                target(batch_mean.format("sparsedial_batch_texts", REPLICA), "texts"),
            ],
            unit="short",
            overrides=[override("texts", custom__axisPlacement="right")],
            min=0,
        ),
        series(
            "Queue",
            "Tokens that wait, and how many may; requests accepted and not yet answered.",
            [
                target(f"sum(sparsedial_queue_tokens{REPLICA})", "waiting tokens"),
                target(f"sum(sparsedial_queue_limit_tokens{REPLICA})", "limit"),
                target(f"sum(sparsedial_requests_in_flight{REPLICA})", "requests in flight"),
            ],
            unit="short",
            overrides=[override("requests in flight", custom__axisPlacement="right")],
            min=0,
        ),
    ]


LADDER_COLUMNS = {
    "Achieved": ("level_achieved_sparsity_ratio", "percentunit", 1),
    "Accuracy": ("level_accuracy_ratio", "percentunit", 1),
    "Low": ("level_accuracy_low_ratio", "percentunit", 1),
    "High": ("level_accuracy_high_ratio", "percentunit", 1),
    "Agreement": ("level_agreement_ratio", "percentunit", 1),
    "Latency, one text": ("level_latency_seconds", "s", 2),
    "Texts per second": ("level_items_per_second", "none", 0),
    "MACs": ("level_macs", "si:", 2),
}
"""Column of the ladder table -> metric without its prefix, unit, decimals."""


def ladder_panel() -> Panel:
    """Return the frontier as a table: one row per level, measured on the serving machine."""
    queries = [
        target(f"max by (sparsity) (sparsedial_{metric})", column, instant=True)
        for column, (metric, _, _) in LADDER_COLUMNS.items()
    ]
    speed_up = "max by (sparsity) (sparsedial_level_items_per_second)"
    queries.append(
        target(f'{speed_up} / scalar(max(sparsedial_level_items_per_second{{sparsity="0"}}))', "Speed-up", instant=True)
    )
    columns = [*LADDER_COLUMNS, "Speed-up"]
    names = {f"Value #{chr(ord('A') + number)}": column for number, column in enumerate(columns)}
    overrides = [
        override(f"^{column}$", unit=unit, decimals=decimals) for column, (_, unit, decimals) in LADDER_COLUMNS.items()
    ]
    return panel(
        "table",
        "Ladder",
        "Every resident level: what it costs in accuracy and buys in speed. PUT /admin/sparsity moves between them.",
        queries,
        overrides=[*overrides, override("^Speed-up$", unit="suffix:x", decimals=2)],
        options={"showHeader": True, "sortBy": [{"displayName": "Sparsity", "desc": False}]},
        transformations=[
            {"id": "merge", "options": {}},
            {
                "id": "organize",
                "options": {
                    "excludeByName": {"Time": True},
                    "indexByName": {"sparsity": 0},
                    "renameByName": {"sparsity": "Sparsity", **names},
                },
            },
            {
                "id": "convertFieldType",
                "options": {"conversions": [{"targetField": "Sparsity", "destinationType": "number"}]},
            },
        ],
    )


def swap_panels() -> list[Panel]:
    """Return how changes end, how long their phases take, and what replicas spend on them."""
    phases = "sparsedial_swap_phase_duration_seconds"
    return [
        panel(
            "bargauge",
            "Swaps by outcome",
            "In the time shown. failed and rolled_back never touched the traffic.",
            [target("sum by (outcome) (increase(sparsedial_swaps_total[$__range]))", "{{outcome}}")],
            defaults={"decimals": 0, "min": 0},
            options={"reduceOptions": {"calcs": ["lastNotNull"]}, "orientation": "horizontal"},
        ),
        panel(
            "bargauge",
            "Phases of a swap",
            "Mean over the time shown: build (only for a new level), prepare on every replica, commit, and all of it.",
            [
                target(
                    f"sum by (phase) (increase({phases}_sum[$__range]))"
                    f" / sum by (phase) (increase({phases}_count[$__range]))",
                    "{{phase}}",
                )
            ],
            unit="s",
            defaults={"min": 0},
            options={"reduceOptions": {"calcs": ["lastNotNull"]}, "orientation": "horizontal"},
        ),
        series(
            "Staging in the replicas",
            "Load and warm-up of a variant beside the live one, p99 over the time shown.",
            [
                target(
                    quantile(0.99, "sparsedial_replica_stage_duration_seconds", "replica", window="$__range"),
                    "{{replica}}",
                )
            ],
            unit="s",
            min=0,
        ),
    ]
