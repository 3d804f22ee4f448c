from pathlib import Path

import pytest

from pruning.errors import SpecError, StoreError
from pruning.files import write_json
from pruning.spec import Pattern, Precision, PruneSpec, Recover
from pruning.speeds import SPEEDS, Run, document_of, read_runs
from pruning.timing import Speed
from pruning.workbench import Workbench
from service.ladder import Ladder, ladder_specs, prepare_ladder, specs_of
from service.settings import Settings


def test_a_ladder_begins_dense_and_goes_up_one_level_at_a_time() -> None:
    specs = ladder_specs([0.5, 0.3, 0.5, 0.0], "taylor", "structured")
    assert [spec.sparsity for spec in specs] == [0.0, 0.3, 0.5]
    assert {(spec.scorer, spec.pattern, spec.recover) for spec in specs} == {
        ("taylor", Pattern.STRUCTURED, Recover.RECONSTRUCT)
    }


def test_dense_is_on_every_ladder() -> None:
    assert ladder_specs([], "fisher", "unstructured") == [PruneSpec(sparsity=0.0, pattern=Pattern.UNSTRUCTURED)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([0.5], "psychic", "structured", None), "unknown scorer 'psychic'; known: cam_cut, .*fisher, .*wanda"),
        (([0.5], "fisher", "plaid", None), "unknown pattern 'plaid'; known: structured, unstructured, 2:4"),
        (([0.5], "fisher", "structured", "magic"), "unknown recover 'magic'; known: none, reconstruct"),
        (([0.5], "obs", "unstructured", None), "'obs' ranks whole heads and neurons; .* use 'fisher'"),
        (([1.0], "fisher", "structured", None), r"\[0, 1\)"),
        (([float("nan")], "fisher", "structured", None), "nan"),
    ],
)
def test_what_cannot_be_built_is_refused_before_anything_is(
    arguments: tuple[list[float], str, str, str | None], words: str
) -> None:
    with pytest.raises(SpecError, match=words):
        ladder_specs(*arguments)


def timed_last(bench: Workbench) -> set[str]:
    """The variants of the newest run."""
    return set(read_runs(bench.root / SPEEDS)[-1].speeds)


@pytest.fixture
def bench(tiny_model_dir: Path, tiny_rows: tuple[Path, Path], tmp_path: Path) -> Workbench:
    return Workbench.open(tiny_model_dir, *tiny_rows, tmp_path)


def test_a_ladder_is_scored_built_and_timed_once_and_told_step_by_step(
    bench: Workbench, capsys: pytest.CaptureFixture[str]
) -> None:
    specs = ladder_specs([0.3, 0.5], "fisher", "structured")
    manifests = prepare_ladder(bench, specs)
    assert [manifest.spec for manifest in manifests] == specs
    told = capsys.readouterr().err
    for words in ("scoring the model: 100 %", "building the ladder: level 0.5, 3 of 3: evaluate", "timing the levels"):
        assert words in told
    assert "calibrating cascades: 100 % (2 of 2)" in told

    assert prepare_ladder(bench, specs) == manifests
    assert capsys.readouterr().err == "building the ladder\n"

    assert prepare_ladder(bench, [*specs, PruneSpec(sparsity=0.4)])[:3] == manifests
    told = capsys.readouterr().err
    assert "level 0.4, 4 of 4" in told and "level 0.5" not in told


def test_a_new_level_is_timed_beside_all_others(bench: Workbench) -> None:
    prepare_ladder(bench, ladder_specs([0.3], "fisher", "structured"))
    manifests = prepare_ladder(bench, ladder_specs([0.3, 0.5], "fisher", "structured"))
    assert timed_last(bench) == {manifest.variant_id for manifest in manifests}


def test_levels_that_were_timed_apart_are_timed_together(bench: Workbench) -> None:
    for levels in ([0.3], [0.5]):
        prepare_ladder(bench, ladder_specs(levels, "fisher", "structured"))
    manifests = prepare_ladder(bench, ladder_specs([0.3, 0.5], "fisher", "structured"))
    assert timed_last(bench) == {manifest.variant_id for manifest in manifests}


def test_levels_whose_speeds_were_lost_are_timed_again(bench: Workbench) -> None:
    specs = ladder_specs([0.3], "fisher", "structured")
    manifests = prepare_ladder(bench, specs)
    (bench.root / SPEEDS).unlink()
    assert prepare_ladder(bench, specs) == manifests
    assert timed_last(bench) == {manifest.variant_id for manifest in manifests}


def test_damaged_speeds_are_refused_with_the_remedy(bench: Workbench) -> None:
    specs = ladder_specs([], "fisher", "structured")
    prepare_ladder(bench, specs)
    (bench.root / SPEEDS).write_text("{")
    with pytest.raises(StoreError, match=r"speeds\.json is damaged .*delete it"):
        prepare_ladder(bench, specs)


def test_a_service_keeps_every_usual_level_and_of_other_precisions_what_nothing_dominates(bench: Workbench) -> None:
    settings = Settings(levels=(0.0, 0.3), precision=(Precision.FLOAT32, Precision.BFLOAT16), sparsity=0.3)
    specs = specs_of(settings)
    assert [(spec.precision, spec.sparsity) for spec in specs] == [
        *((Precision.FLOAT32, level) for level in (0.0, 0.3)),
        *((Precision.BFLOAT16, level) for level in (0.0, 0.3)),
    ]
    dense, usual, slow, fast = (manifest.variant_id for manifest in prepare_ladder(bench, specs))
    rates = {dense: 100.0, usual: 50.0, slow: 90.0, fast: 900.0}
    run = Run.now({name: Speed(latency_p50_ms=1.0, items_per_s=rate) for name, rate in rates.items()})
    write_json(bench.root / SPEEDS, document_of(read_runs(bench.root / SPEEDS), run))
    ladder = Ladder.of([bench.store.manifest(name) for name in rates], bench.store, settings)
    assert ladder == Ladder((dense, usual, fast), usual)


def test_the_ladder_of_a_service_recovers_as_it_is_told() -> None:
    assert {spec.rounds for spec in specs_of(Settings(levels=(0.0, 0.3), rounds=4))} == {4}
    settings = Settings(levels=(0.0, 0.3), recover=Recover.SEQUENTIAL)
    assert [spec.recover for spec in specs_of(settings)] == [Recover.SEQUENTIAL] * 2
    assert [spec.recover for spec in specs_of(Settings(levels=(0.0,)))] == [Recover.RECONSTRUCT]
