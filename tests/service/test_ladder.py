from pathlib import Path

import pytest

from pruning.errors import SpecError
from pruning.spec import Pattern, PruneSpec, Recover
from pruning.workbench import Workbench
from service.ladder import ladder_specs, prepare_ladder


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
        (([0.5], "psychic", "structured", None), "unknown scorer 'psychic'; known: fisher, magnitude, taylor"),
        (([0.5], "fisher", "plaid", None), "unknown pattern 'plaid'; known: structured, unstructured"),
        (([0.5], "fisher", "structured", "magic"), "unknown recover 'magic'; known: none, reconstruct"),
        (([0.5], "fisher", "unstructured", "reconstruct"), "recover='none'"),
        (([1.0], "fisher", "structured", None), r"\[0, 1\)"),
        (([float("nan")], "fisher", "structured", None), "nan"),
    ],
)
def test_what_cannot_be_built_is_refused_before_anything_is(
    arguments: tuple[list[float], str, str, str | None], words: str
) -> None:
    with pytest.raises(SpecError, match=words):
        ladder_specs(*arguments)


@pytest.fixture
def bench(tiny_model_dir: Path, tiny_rows: tuple[Path, Path], tmp_path: Path) -> Workbench:
    bench = Workbench.open(tiny_model_dir, *tiny_rows, tmp_path)
    bench.calibrate()
    return bench


def test_a_ladder_is_built_once_and_told_step_by_step(bench: Workbench, capsys: pytest.CaptureFixture[str]) -> None:
    specs = ladder_specs([0.3, 0.5], "fisher", "structured")
    manifests = prepare_ladder(bench, specs)
    assert [manifest.spec for manifest in manifests] == specs
    assert "building the ladder: level 0.5, 3 of 3: evaluate" in capsys.readouterr().err
    assert prepare_ladder(bench, [*specs, PruneSpec(sparsity=0.4)])[:3] == manifests
    told = capsys.readouterr().err
    assert "level 0.4, 4 of 4" in told and "level 0.5" not in told
