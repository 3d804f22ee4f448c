import json
from pathlib import Path

import pytest

from loadtests.records import read_replies, write_replies
from tests.loadtests.replies import reply


def test_replies_survive_their_file(tmp_path: Path) -> None:
    replies = [
        reply(index=0, done_s=0.25),
        reply(index=1, status=0, error="TimeoutError", generation=None, sparsity=None),
    ]
    write_replies(tmp_path / "r.jsonl", replies)
    assert list(read_replies(tmp_path / "r.jsonl")) == replies


def test_a_line_holds_everything_that_the_report_needs(tmp_path: Path) -> None:
    write_replies(tmp_path / "r.jsonl", [reply(intended_s=1.0, sent_s=1.5, done_s=2.25)])
    record = json.loads((tmp_path / "r.jsonl").read_text(encoding="utf-8"))
    assert record["latency_s"] == 1.25
    assert record.keys() >= {"intended_s", "sent_s", "status", "generation", "sparsity", "connection"}


def test_a_result_is_never_overwritten(tmp_path: Path) -> None:
    write_replies(tmp_path / "r.jsonl", [reply()])
    with pytest.raises(FileExistsError):
        write_replies(tmp_path / "r.jsonl", [reply()])
