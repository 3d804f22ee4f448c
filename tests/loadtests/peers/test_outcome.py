import json
from datetime import UTC, datetime

import pytest

from loadtests.peers.catalog import CONTESTANTS
from loadtests.peers.cells import Reading
from loadtests.peers.outcome import result_of
from loadtests.peers.rows import Row, share_equal
from loadtests.phases import summarize
from loadtests.report import as_json, markdown
from tests.loadtests.replies import reply

TAKEN_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BY_NAME = {contestant.name: contestant for contestant in CONTESTANTS}


def reading(items_per_s: float, *, others_cores: float = 0.0, status: int = 200) -> Reading:
    phase = summarize("c1", [reply(done_s=0.02), reply(status=status, done_s=0.02)], seconds=1.0)
    return Reading(items_per_s=items_per_s, phase=phase, others_cores=others_cores)


def row(name: str, *readings: Reading, labels: str = "", level: float | None = None, fault: str = "") -> Row:
    made = Row(contestant=BY_NAME[name], level=level, readings={"c1": list(readings)} if readings else {})
    made.labels = [list(labels)] if labels else []
    if fault:
        made.note(fault)
    return made


@pytest.mark.parametrize(("labels", "share"), [("ab", 1.0), ("aa", 0.5), ("ba", 0.0)])
def test_agreement_is_the_share_of_places_with_the_same_label(labels: str, share: float) -> None:
    assert share_equal(labels, "ab") == share


def test_labels_of_another_number_cannot_be_compared() -> None:
    with pytest.raises(ValueError):
        share_equal("a", "ab")


def test_the_worst_start_counts() -> None:
    made = row("hf", labels="abab")
    made.labels.append(list("abbb"))
    assert made.agreement(list("abab")) == 0.75


def test_labels_of_a_copy_for_speed_only_are_not_compared() -> None:
    assert row("deepsparse-0.9", labels="ab").agreement(list("ab")) is None


def table(rows: list[Row], title: str, gold: str | None = None) -> dict[str, tuple[str, ...]]:
    result = result_of(rows, ["c1", "c8"], {}, list(gold) if gold else None)
    (found,) = [each for each in result.tables if each.title == title]
    return {line[0]: line[1:] for line in found.rows}


def test_every_reading_stands_in_its_cell_and_disturbed_ones_are_marked() -> None:
    rows = [row("hf", reading(53), reading(76, others_cores=0.3)), row("ovserve", fault="does not install: gone")]
    assert table(rows, "Texts per second") == {"hf": ("53/76*", "-"), "ovserve": ("-", "-")}
    assert table(rows, "Latency, p50 (ms)")["hf"][0].endswith("*")


def test_ratios_are_of_medians_against_dense_sparsedial() -> None:
    rows = [row("sparsedial", reading(100), reading(300), level=0.0), row("hf", reading(50))]
    assert table(rows, "Throughput against dense SparseDial") == {"sparsedial 0": ("1.00", "-"), "hf": ("0.25", "-")}
    assert table(rows[1:], "Throughput against dense SparseDial") == {"hf": ("-", "-")}


def test_agreement_and_accuracy_stand_beside_each_other() -> None:
    rows = [row("sparsedial", labels="abab", level=0.0), row("hf", labels="abaa")]
    found = table(rows, "Contestants", gold="abbb")
    assert found["sparsedial 0"][1:3] == ("100.00%", "75.00%")
    assert found["hf"][1:3] == ("75.00%", "50.00%")


def test_who_was_not_measured_has_a_row_that_says_why_and_breaks_the_law() -> None:
    result = result_of(
        [row("hf", reading(1)), row("infinity", fault="does not install: no such | version")], ["c1"], {}, None
    )
    assert not result.held
    page = markdown(result, taken_at=TAKEN_AT)
    assert r"does not install: no such \| version |" in page
    assert "| every contestant is measured | **no** | 1 |" in page
    assert "## Phases" not in page


def test_a_failed_request_is_shown_for_all_and_breaks_the_law_for_sparsedial_alone() -> None:
    other = [row("hf", reading(1, status=503))]
    assert result_of(other, ["c1"], {}, None).held
    assert table(other, "Contestants")["hf"][3] == "1"
    ours = result_of([row("sparsedial", reading(1, status=503), level=0.5)], ["c1"], {}, None)
    assert [law.name for law in ours.laws if not law.held] == ["SparseDial fails no request"]


def test_the_figures_are_plain_json() -> None:
    result = result_of([row("hf", reading(2), labels="ab")], ["c1"], {}, list("ab"))
    figures = json.loads(json.dumps(as_json(result, taken_at=TAKEN_AT), allow_nan=False))
    assert figures["rows"][0]["readings"]["c1"][0]["items_per_s"] == 2
    assert figures["rows"][0]["accuracy"] == 1.0
