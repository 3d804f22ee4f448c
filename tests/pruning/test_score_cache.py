import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pruning.errors import CacheError
from pruning.score_cache import KEY, SUMS, ScoreCache, ScoreKey
from tests.pruning.parts import everything_under, flip_byte

MADE = ScoreKey(calibration="0123456789abcdef", scorer="platon", scorer_version=1)
OTHERS = [
    replace(MADE, calibration="fedcba9876543210"),
    replace(MADE, scorer="seven"),
    replace(MADE, scorer_version=2),
]


def sums() -> dict[str, Tensor]:
    return {"layers.0.query.weight": torch.arange(6.0).view(2, 3), "heads_LN": torch.ones(1, 2)}


def never() -> Mapping[str, Tensor]:
    raise AssertionError("made again")


@pytest.fixture
def cache(tmp_path: Path) -> ScoreCache:
    made = ScoreCache(tmp_path)
    made.get_or_make(MADE, sums)
    return made


def folder_of(cache: ScoreCache) -> Path:
    (folder,) = cache.folder.iterdir()
    return folder


def test_sums_are_made_once_and_read_back_as_they_were(cache: ScoreCache) -> None:
    stored = cache.get_or_make(MADE, never)
    assert stored.keys() == sums().keys()
    assert all(torch.equal(stored[name], tensor) for name, tensor in sums().items())


@pytest.mark.parametrize("key", OTHERS, ids=str)
def test_another_calibration_scorer_or_version_has_sums_of_its_own(cache: ScoreCache, key: ScoreKey) -> None:
    with pytest.raises(AssertionError, match="made again"):
        cache.get_or_make(key, never)


@pytest.mark.parametrize("position", [0, 100, -1])
def test_an_altered_file_is_refused_naming_the_remedy(cache: ScoreCache, position: int) -> None:
    flip_byte(folder_of(cache) / SUMS, position)
    words = rf"{SUMS} does not match its checksum .*; delete .*, and the next cut by platon scores again"
    with pytest.raises(CacheError, match=words):
        cache.get_or_make(MADE, never)


@pytest.mark.parametrize("size", [0, 5, 100])
def test_a_truncated_file_is_refused(cache: ScoreCache, size: int) -> None:
    path = folder_of(cache) / SUMS
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CacheError, match="does not match its checksum"):
        cache.get_or_make(MADE, never)


def test_a_missing_file_is_refused_by_name(cache: ScoreCache) -> None:
    (folder_of(cache) / SUMS).unlink()
    with pytest.raises(CacheError, match=f"{SUMS} cannot be read"):
        cache.get_or_make(MADE, never)


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", '{"key": 3}'])
def test_a_damaged_key_file_is_refused_by_name(cache: ScoreCache, content: str) -> None:
    (folder_of(cache) / KEY).write_text(content)
    with pytest.raises(CacheError, match=rf"{KEY} is damaged; delete"):
        cache.get_or_make(MADE, never)


def test_a_key_file_of_another_key_is_refused(cache: ScoreCache) -> None:
    path = folder_of(cache) / KEY
    record = json.loads(path.read_text())
    record["key"]["scorer"] = "seven"
    path.write_text(json.dumps(record))
    with pytest.raises(CacheError, match=r"damaged .*'seven'.*'platon'"):
        cache.get_or_make(MADE, never)


def test_scores_that_are_not_finite_are_refused_naming_tensor_and_scorer(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path)
    with pytest.raises(CacheError, match=r"scores of layers\.1 by platon are not finite"):
        cache.get_or_make(MADE, lambda: {"layers.1": torch.tensor([1.0, float("inf")])})
    assert everything_under(tmp_path) == []


@pytest.mark.parametrize("place", ["pruning.score_cache.save_file", "pruning.score_cache.write_json"])
def test_a_full_disk_is_reported_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def no_space(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    cache = ScoreCache(tmp_path)
    monkeypatch.setattr(place, no_space)
    with pytest.raises(CacheError, match=r"could not be written to .*No space left on device; free space"):
        cache.get_or_make(MADE, sums)
    assert everything_under(cache.folder) == []
