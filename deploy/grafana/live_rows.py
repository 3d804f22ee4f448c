"""What the rows on live control ask of Prometheus: quality on live traffic, the governor, the cascades."""

from deploy.grafana.panels import REPLICA, Panel, override, quantile, series, target

WINDOW = "[$__rate_interval]"


def quality_panels() -> list[Panel]:
    """Return what live traffic says of the levels that answer it, without labels and with those that came back."""

    def flips(by: str) -> str:
        flipped, both = (
            f"sum by ({by}) (rate(sparsedial_shadow_{by}_texts_total{labels}{WINDOW}))"
            for labels in ('{replica=~"$replica",outcome="flipped"}', REPLICA)
        )
        return f"{flipped} / {both}"

    return [
        series(
            "Agreement on live traffic",
            "Share of texts that the dense model labels alike, by level, with the 95 % interval.",
            [
                target("max by (sparsity) (sparsedial_online_agreement_high_ratio)", "{{sparsity}}, high"),
                target("max by (sparsity) (sparsedial_online_agreement_ratio)", "{{sparsity}}"),
                target("max by (sparsity) (sparsedial_online_agreement_low_ratio)", "{{sparsity}}, low"),
                target("max by (sparsity) (sparsedial_online_accuracy_ratio)", "{{sparsity}}, accuracy by true labels"),
            ],
            unit="percentunit",
            overrides=[override(".*, (high|low)", custom__lineStyle={"fill": "dash", "dash": [4, 4]})],
            max=1,
        ),
        *(
            series(f"Flips by {by}", words, [target(flips(by), f"{{{{{by}}}}}")], unit="percentunit", min=0)
            for by, words in (
                ("label", "Of what a level labelled so, the share that the dense model labels otherwise."),
                ("length", "The same by length in tokens."),
            )
        ),
        series(
            "Shadow answers",
            "Texts that the dense model answered too, and samples that found no idle moment.",
            [
                target(
                    f"sum by (sparsity) (rate(sparsedial_shadow_texts_total{REPLICA}{WINDOW}))", "level {{sparsity}}"
                ),
                target(
                    f"sum by (reason) (rate(sparsedial_shadow_dropped_total{REPLICA}{WINDOW}))", "dropped: {{reason}}"
                ),
            ],
            unit="short",
            min=0,
        ),
    ]


def governor_panels() -> list[Panel]:
    """Return what the governor sees, wants and does; its panels stand still while the operator turns the dial."""
    return [
        series(
            "Governor: level",
            "What it wants against what the replicas answer with, as sparsity asked for: they part while a change is "
            "under way. active: 1 while the mode is auto.",
            [
                target("max(sparsedial_governor_wanted_level)", "wanted"),
                target(f"min(sparsedial_requested_sparsity_ratio{REPLICA})", "answering, densest replica"),
                target(f"max(sparsedial_requested_sparsity_ratio{REPLICA})", "answering, sparsest replica"),
                target("max(sparsedial_governor_active)", "active"),
            ],
            unit="percentunit",
            custom={"lineInterpolation": "stepAfter"},
            overrides=[
                override("wanted", custom__lineStyle={"fill": "dash", "dash": [8, 6]}),
                override("active", unit="none", custom__axisPlacement="right", decimals=0),
            ],
            min=0,
            max=1,
        ),
        series(
            "Governor: load",
            "Share of the time that the lanes of the busiest replica work, and of processor time that the model takes: "
            "where that is low, no sparser level helps.",
            [
                target("max(sparsedial_governor_utilisation_ratio)", "utilisation"),
                target("max(sparsedial_governor_model_share_ratio)", "model's share"),
                target(
                    "max(sparsedial_governor_arrived_tokens_per_second)"
                    " / max(sparsedial_governor_capacity_tokens_per_second)",
                    "what comes / what the level holds",
                ),
            ],
            unit="percentunit",
            min=0,
        ),
        series(
            "Governor: waiting",
            "What waits, in the replica where it needs longest, and p99 of the answers, beside the target.",
            [
                target("max(sparsedial_governor_queue_seconds)", "queue"),
                target(quantile(0.99, "sparsedial_request_duration_seconds"), "p99"),
                target("max(sparsedial_slo_p99_seconds)", "target"),
                target("max(sparsedial_governor_refused_per_second)", "refused per second"),
            ],
            unit="s",
            overrides=[
                override(
                    "target",
                    color={"mode": "fixed", "fixedColor": "red"},
                    custom__lineStyle={"fill": "dash", "dash": [8, 6]},
                ),
                override("refused per second", unit="reqps", custom__axisPlacement="right"),
            ],
            min=0,
        ),
        series(
            "Governor: moves and reasons",
            "Moves per minute by direction and reason, and, stacked, what its decisions rest on.",
            [
                target(
                    f"60 * sum by (direction, why) (rate(sparsedial_governor_moves_total{WINDOW}))",
                    "moves a minute {{direction}}: {{why}}",
                ),
                target(
                    f"sum by (why) (rate(sparsedial_governor_ticks_total{WINDOW}))"
                    f" / scalar(sum(rate(sparsedial_governor_ticks_total{WINDOW})))",
                    "decisions: {{why}}",
                ),
            ],
            unit="short",
            overrides=[
                override(
                    "decisions.*",
                    unit="percentunit",
                    custom__axisPlacement="right",
                    custom__stacking={"mode": "normal", "group": "decisions"},
                    custom__fillOpacity=20,
                    custom__lineWidth=0,
                )
            ],
            min=0,
        ),
    ]


def cascade_panels() -> list[Panel]:
    """Return what becomes of the texts that cascades answer, and whether they hold their agreement."""
    texts = f"sum by (sparsity, outcome) (rate(sparsedial_cascade_texts_total{REPLICA}{WINDOW}))"
    all_texts = f"sum by (sparsity) (rate(sparsedial_cascade_texts_total{REPLICA}{WINDOW}))"
    refused = 'sparsedial_cascade_texts_total{replica=~"$replica",outcome=~"busy|late|failed"}'
    return [
        series(
            "Cascades: who answered",
            "Share of the texts by level: sure, answered by the level; escalated, by the dense model. Of the others "
            "the level was not sure and answered nevertheless.",
            [target(f"{texts} / on (sparsity) group_left () {all_texts}", "{{sparsity}} {{outcome}}")],
            unit="percentunit",
            min=0,
            max=1,
        ),
        series(
            "Cascades: not escalated",
            "Share of the texts that a level was not sure of and that the dense model did not answer: busy, the queue "
            "was full; late, the deadline was near; failed.",
            [
                target(
                    f"sum by (sparsity, outcome) (rate({refused}{WINDOW})) / on (sparsity) group_left () {all_texts}",
                    "{{sparsity}} {{outcome}}",
                )
            ],
            unit="percentunit",
            min=0,
            max=1,
        ),
        series(
            "Cascades: agreement on live traffic",
            "Share of texts that the dense model labels alike, by level and wanted agreement, with the 95 % interval, "
            "beside what evaluation rows say, and the floor of the policy's cascade.",
            [
                target(
                    "max by (sparsity, target) (sparsedial_cascade_online_agreement_ratio)", "{{sparsity}} {{target}}"
                ),
                target(
                    "max by (sparsity, target) (sparsedial_cascade_online_agreement_high_ratio)",
                    "{{sparsity}} {{target}}, high",
                ),
                target(
                    "max by (sparsity, target) (sparsedial_cascade_online_agreement_low_ratio)",
                    "{{sparsity}} {{target}}, low",
                ),
                target(
                    "max by (sparsity, target) (sparsedial_cascade_agreement_ratio)", "{{sparsity}} {{target}}, rows"
                ),
                target("max(sparsedial_cascade_agreement_floor_ratio)", "floor"),
            ],
            unit="percentunit",
            overrides=[
                override(".*, (high|low)", custom__lineStyle={"fill": "dash", "dash": [4, 4]}),
                override(
                    "floor",
                    color={"mode": "fixed", "fixedColor": "red"},
                    custom__lineStyle={"fill": "dash", "dash": [8, 6]},
                ),
            ],
            max=1,
        ),
        series(
            "Cascades: the policy's own",
            "wanted: the policy names one; active: it answers. They part where the guard switched it off. On the "
            "right, texts a second that were compared.",
            [
                target("max(sparsedial_cascade_wanted)", "wanted"),
                target("max(sparsedial_cascade_active)", "active"),
                target(
                    f"sum by (sparsity, outcome) (rate(sparsedial_cascade_shadow_texts_total{REPLICA}{WINDOW}))",
                    "compared {{sparsity}} {{outcome}}",
                ),
            ],
            unit="none",
            custom={"lineInterpolation": "stepAfter"},
            overrides=[override("compared.*", unit="short", custom__axisPlacement="right")],
            min=0,
        ),
    ]
