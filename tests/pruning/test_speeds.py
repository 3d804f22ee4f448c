import json
from dataclasses import replace
from pathlib import Path

import pytest

from pruning.errors import StoreError
from pruning.files import digest_of, write_json
from pruning.speeds import RUNS_KEPT, Run, document_of, newest_run, read_runs
from pruning.timing import Speed


def run_of(*variant_ids: str, rate: float = 10.0) -> Run:
    return Run.now({variant_id: Speed(latency_p50_ms=1.5, items_per_s=rate) for variant_id in variant_ids})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "speeds.json"


def write(path: Path, *runs: Run) -> None:
    for run in runs:
        write_json(path, document_of(read_runs(path), run))


def test_runs_come_back_as_they_were_written_oldest_first(path: Path) -> None:
    runs = [run_of("a", "b"), run_of("a", "c", rate=1 / 3)]
    write(path, *runs)
    assert read_runs(path) == runs
    assert runs[0].id != runs[1].id
    assert runs[0].at <= runs[1].at


def test_a_run_that_the_next_repeats_in_full_is_forgotten(path: Path) -> None:
    runs = [run_of("a", "b"), run_of("c"), run_of("a", "b", "d")]
    write(path, *runs)
    assert read_runs(path) == runs[1:]


def test_the_oldest_runs_are_forgotten(path: Path) -> None:
    runs = [run_of(f"variant {number}") for number in range(RUNS_KEPT + 3)]
    write(path, *runs)
    assert read_runs(path) == runs[3:]


def test_the_newest_run_with_all_variants_asked_for_is_found() -> None:
    runs = [run_of("a", "b"), run_of("a", "b", "c"), run_of("a", "c")]
    assert newest_run(runs, {"a", "b"}) is runs[1]
    assert newest_run(runs, {"a"}) is runs[2]
    assert newest_run(runs, {"a", "d"}) is None


def test_an_absent_file_holds_no_runs(path: Path) -> None:
    assert read_runs(path) == []


def test_speeds_of_the_time_before_runs_are_treated_as_absent(path: Path) -> None:
    write_json(path, {"f" * 16: {"latency_p50_ms": 1.0, "items_per_s": 2.0}})
    assert read_runs(path) == []
    write(path, run_of("a"))
    assert len(read_runs(path)) == 1


@pytest.mark.parametrize("byte", [0x00, 0x80, ord("}"), ord("7")])
def test_no_changed_byte_goes_unnoticed(path: Path, byte: int) -> None:
    write(path, replace(run_of("a", "b"), at=1.5))  # of a longer number the last digit may say nothing
    content = path.read_bytes()
    for position in range(len(content)):
        changed = content[:position] + bytes([byte]) + content[position + 1 :]
        path.write_bytes(changed)
        if changed != content:
            with pytest.raises(StoreError, match=r"speeds\.json is damaged.*; delete it and run 'sparsedial prepare'"):
                read_runs(path)


@pytest.mark.parametrize("content", ["", "[]", "7", '{"runs": []}', '{"sha256": ""}', '{"runs": 1, "sha256": ""}'])
def test_a_file_of_another_form_is_refused_by_name(path: Path, content: str) -> None:
    path.write_text(content)
    with pytest.raises(StoreError, match=r"speeds\.json is damaged"):
        read_runs(path)


def test_a_renamed_key_is_refused_even_with_a_checksum_that_fits(path: Path) -> None:
    values = document_of([], run_of("a"))["runs"]
    values[0]["speeds"]["a"]["items_per_t"] = values[0]["speeds"]["a"].pop("items_per_s")
    path.write_text(json.dumps({"runs": values, "sha256": digest_of(values)}))
    with pytest.raises(StoreError, match=r"speeds\.json is damaged .*items_per_t"):
        read_runs(path)
