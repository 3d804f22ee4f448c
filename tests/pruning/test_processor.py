from pathlib import Path

import pytest

import pruning.processor as module


@pytest.mark.parametrize(
    ("told", "name"),
    [
        (
            "processor\t: 0\nmodel name\t: Some CPU @ 2.7GHz\n\nmodel name\t: Another\n",
            "Some CPU @ 2.7GHz",
        ),
        ("processor\t: 0\nCPU part\t: 0xd0c\n", "by platform"),
        (None, "by platform"),
    ],
)
def test_a_processor_is_known_by_the_name_that_the_system_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str | None, name: str
) -> None:
    monkeypatch.setattr(module, "NAMES", tmp_path / "cpuinfo")
    monkeypatch.setattr(module.platform, "processor", lambda: "by platform")
    monkeypatch.setattr(module.os, "cpu_count", lambda: 3)
    if told is not None:
        module.NAMES.write_text(told)
    assert module.processor() == f"{name}, 3 cores"
