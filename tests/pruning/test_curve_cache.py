from pathlib import Path

import pytest
import torch

from pruning.curve_cache import CurveCache
from pruning.curves import cost_curves
from pruning.errors import CacheError
from pruning.masks.structures import CostCurve
from pruning.scores import Fisher, Taylor
from pruning.workbench import Workbench


def same(one: list[CostCurve], other: list[CostCurve]) -> bool:
    return all(
        torch.equal(a.order, b.order) and (a.layer, a.kind, a.step, a.costs) == (b.layer, b.kind, b.step, b.costs)
        for a, b in zip(one, other, strict=True)
    )


def never() -> list[CostCurve]:
    raise AssertionError("solved again")


@pytest.fixture
def solved(bench: Workbench) -> list[CostCurve]:
    return cost_curves(bench.base, bench.calibration, Fisher().structures(bench.base, bench.calibration))


def test_curves_are_solved_once_and_read_back_as_they_were(tmp_path: Path, solved: list[CostCurve]) -> None:
    cache = CurveCache(tmp_path)
    assert same(cache.get_or_solve("key", Fisher(), lambda: solved), solved)
    assert same(cache.get_or_solve("key", Fisher(), never), solved)


def test_another_calibration_or_scorer_has_curves_of_its_own(tmp_path: Path, solved: list[CostCurve]) -> None:
    cache = CurveCache(tmp_path)
    cache.get_or_solve("key", Fisher(), lambda: solved)
    for digest, scorer in (("other", Fisher()), ("key", Taylor())):
        with pytest.raises(AssertionError, match="solved again"):
            cache.get_or_solve(digest, scorer, never)


def test_altered_curves_are_refused_by_name(tmp_path: Path, solved: list[CostCurve]) -> None:
    cache = CurveCache(tmp_path)
    cache.get_or_solve("key", Fisher(), lambda: solved)
    [path] = cache.folder.iterdir()
    path.write_text(path.read_text().replace('"layer": 0', '"layer": 1', 1))
    with pytest.raises(CacheError, match=r"key-fisher.*does not match its checksum"):
        cache.get_or_solve("key", Fisher(), never)


@pytest.mark.parametrize("byte", [0x80, 0xFF, ord("}")])
def test_curves_with_a_flipped_byte_are_refused_by_name_with_the_remedy(
    tmp_path: Path, solved: list[CostCurve], byte: int
) -> None:
    cache = CurveCache(tmp_path)
    cache.get_or_solve("key", Fisher(), lambda: solved)
    [path] = cache.folder.iterdir()
    content = bytearray(path.read_bytes())
    for position in range(0, len(content), 97):
        path.write_bytes(bytes(content[:position] + bytes([byte]) + content[position + 1 :]))
        if path.read_bytes() != content:
            with pytest.raises(CacheError, match=r"key-fisher.*; delete it, and the next cut solves it again"):
                cache.get_or_solve("key", Fisher(), never)


@pytest.mark.parametrize("content", ["[]", "{}", "1", '{"curves": 1, "sha256": 2}'])
def test_curves_of_another_form_are_refused_by_name(tmp_path: Path, solved: list[CostCurve], content: str) -> None:
    cache = CurveCache(tmp_path)
    cache.get_or_solve("key", Fisher(), lambda: solved)
    [path] = cache.folder.iterdir()
    path.write_text(content)
    with pytest.raises(CacheError, match=r"key-fisher.* is damaged"):
        cache.get_or_solve("key", Fisher(), never)


def test_curves_that_cannot_be_written_are_refused_and_nothing_is_left(tmp_path: Path, solved: list[CostCurve]) -> None:
    (tmp_path / "curves").write_text("in the way")
    with pytest.raises(CacheError, match="could not be written"):
        CurveCache(tmp_path).get_or_solve("key", Fisher(), lambda: solved)
