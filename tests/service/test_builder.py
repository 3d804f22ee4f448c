import errno
import itertools
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pruning import pipeline
from pruning.cascades import read_cascades
from pruning.spec import PruneSpec
from pruning.variants import Manifest
from service import builder as module
from service import pace
from service.builder import VariantBuilder
from service.operations import Cause
from service.protocol import Refusal
from service.sources import Sources

HALF = PruneSpec(sparsity=0.5)
IN_A_CHILD = """
import os, sys
from pathlib import Path
from pruning.spec import PruneSpec
from service.builder import VariantBuilder
from service.sources import Sources

builder = VariantBuilder(Sources(*map(Path, sys.argv[1:])), threads=1, keep_variants=1)
print(os.sched_getscheduler(0) == os.SCHED_IDLE or os.nice(0) == 19, builder.calibrate(), builder.calibrate())
print(builder.warm() == os.getpid(), builder.build(PruneSpec(sparsity=0.5)).achieved_sparsity)
"""


@pytest.fixture
def sources(tiny_model_dir: Path, tiny_rows: tuple[Path, Path], tmp_path: Path) -> Sources:
    return Sources(tiny_model_dir, *tiny_rows, tmp_path / "store")


@pytest.fixture
def builder(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> VariantBuilder:
    """A calibrated builder that leaves the priority of the tests alone."""
    monkeypatch.setattr(module, "yield_cpu", lambda: None)
    builder = VariantBuilder(sources, torch.get_num_threads(), keep_variants=1)
    assert builder.calibrate()
    return builder


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def no_space(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_build_that_is_kept_waiting_still_reads_the_speed_of_all_threads(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every batch is told that its threads waited for as long as one can."""
    waited, usual = itertools.count(), torch.get_num_threads()
    seen: dict[str, int] = {}
    monkeypatch.setattr(module, "yield_cpu", lambda: None)
    monkeypatch.setattr(pace, "seconds_waited", lambda: float(next(waited)) * 1e9)
    monkeypatch.setattr(pace, "LONGEST_S", 0.0)
    for name in ("evaluate", "items_per_second"):
        monkeypatch.setattr(pipeline, name, _noting_threads(getattr(pipeline, name), seen))
    try:
        builder = VariantBuilder(sources, 2, keep_variants=1)
        builder.calibrate()
        builder.build(HALF)
        assert (seen, torch.get_num_threads()) == ({"evaluate": 1, "items_per_second": 2}, 2)
    finally:
        torch.set_num_threads(usual)


def _noting_threads(call: Callable[..., Any], seen: dict[str, int]) -> Callable[..., Any]:
    def noting(*words: Any, **named: Any) -> Any:
        seen[call.__name__] = torch.get_num_threads()
        return call(*words, **named)

    return noting


def test_the_same_spec_twice_is_one_variant(builder: VariantBuilder, sources: Sources) -> None:
    first, second = builder.build(HALF), builder.build(PruneSpec(sparsity=0.5))
    assert isinstance(first, Manifest)
    assert first == second
    assert [path.name for path in (sources.store / "variants").iterdir()] == [first.variant_id]


def test_a_ladder_that_nobody_prepared_gets_its_cascades(builder: VariantBuilder, sources: Sources) -> None:
    ladder = [builder.build(spec) for spec in (PruneSpec(sparsity=0.0), HALF)]
    manifests = [one for one in ladder if isinstance(one, Manifest)]
    builder.cascade(manifests)
    assert list(read_cascades(sources.store)) == [manifests[1].variant_id]


def test_a_build_lets_the_oldest_variants_go_but_none_in_use(builder: VariantBuilder, sources: Sources) -> None:
    def built(sparsity: float, *in_use: str) -> str:
        manifest = builder.build(PruneSpec(sparsity=sparsity), frozenset(in_use))
        assert isinstance(manifest, Manifest)
        return manifest.variant_id

    def stored() -> set[str]:
        return {path.name for path in (sources.store / "variants").iterdir()}

    used = built(0.0)
    first = built(0.3, used)
    second = built(0.5, used)
    assert stored() == {used, first, second}
    assert built(0.3, used) == first  # asked for again: now the second is the oldest
    third = built(0.7, used)
    assert stored() == {used, first, third}


def test_without_a_word_of_what_is_in_use_all_stay(builder: VariantBuilder, sources: Sources) -> None:
    for sparsity in (0.0, 0.3, 0.5, 0.7):
        assert isinstance(builder.build(PruneSpec(sparsity=sparsity)), Manifest)
    assert len(list((sources.store / "variants").iterdir())) == 4


@pytest.mark.parametrize(
    ("spec", "words"),
    [(PruneSpec(sparsity=0.5, scorer="psychic"), "unknown scorer 'psychic'"), (PruneSpec(sparsity=0.999), "0.999")],
)
def test_a_refusal_is_a_value(builder: VariantBuilder, spec: PruneSpec, words: str) -> None:
    outcome = builder.build(spec)
    assert isinstance(outcome, Refusal) and words in outcome.message
    assert outcome.cause is Cause.BUILD
    assert pickle.loads(pickle.dumps(outcome)) == outcome


def test_without_calibration_a_build_is_refused(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "yield_cpu", lambda: None)
    outcome = VariantBuilder(sources, torch.get_num_threads(), 1).build(HALF)
    assert isinstance(outcome, Refusal) and "sparsedial prepare" in outcome.message
    assert outcome.cause is Cause.BUILD


@pytest.mark.parametrize("where", ["save_file", "write_json"])
def test_a_disk_that_fills_up_leaves_nothing_and_the_next_build_works(
    where: str, builder: VariantBuilder, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder.warm()
    assert isinstance(builder.build(PruneSpec(sparsity=0.3)), Manifest)
    before = files_below(sources.store)
    with monkeypatch.context() as full:
        full.setattr(f"pruning.variants.{where}", no_space)
        outcome = builder.build(HALF)
    assert isinstance(outcome, Refusal)
    assert outcome.cause is Cause.STORAGE
    assert "No space left on device" in outcome.message and str(sources.store) in outcome.message
    assert files_below(sources.store) == before
    assert isinstance(builder.build(HALF), Manifest)


def test_a_disk_without_room_for_the_curves_is_storage_too(
    builder: VariantBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pruning.curve_cache.write_json", no_space)
    outcome = builder.build(HALF)
    assert isinstance(outcome, Refusal) and "No space left on device" in outcome.message
    assert outcome.cause is Cause.STORAGE


@pytest.mark.parametrize("raised", [OSError(errno.EIO, "Input/output error"), PermissionError(errno.EACCES, "denied")])
def test_an_error_of_the_system_is_a_refusal_that_names_the_store(
    raised: OSError, builder: VariantBuilder, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise raised

    monkeypatch.setattr(module, "build_variant", fail)
    outcome = builder.build(HALF)
    assert isinstance(outcome, Refusal)
    assert outcome.cause is Cause.STORAGE
    assert str(raised) in outcome.message and str(sources.store) in outcome.message


def test_a_mistake_of_our_own_is_not_disguised(builder: VariantBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise TypeError("ours")

    monkeypatch.setattr(module, "build_variant", fail)
    with pytest.raises(TypeError, match="ours"):
        builder.build(HALF)


def test_it_builds_in_a_process_of_its_own_that_gives_way(sources: Sources) -> None:
    arguments = [str(path) for path in (sources.model, sources.train, sources.evaluation, sources.store)]
    done = subprocess.run(
        [sys.executable, "-c", IN_A_CHILD, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == "True True False"
    warm, achieved = second.split()
    assert warm == "True" and float(achieved) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("missing", [AttributeError, PermissionError])
def test_where_there_is_no_idle_class_it_is_nice(missing: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def refuse(*_: object) -> None:
        raise missing

    nice: Callable[[int], None] = asked.append
    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    monkeypatch.setattr(os, "nice", nice)
    module.yield_cpu()
    assert asked == [19]
