"""What makes another variant of a cut, and what does not."""

from dataclasses import replace

import pytest

import pruning.identity
from pruning.identity import identify
from pruning.scores import Fisher
from pruning.spec import Pattern, Precision, PruneSpec, Recover, Scope
from pruning.workbench import Workbench

UNSTRUCTURED = Pattern.UNSTRUCTURED
SPECS = [
    PruneSpec(sparsity=0.0),
    PruneSpec(sparsity=0.5),
    PruneSpec(sparsity=0.5, recover=Recover.NONE),
    PruneSpec(sparsity=0.5, recover=Recover.SEQUENTIAL),
    PruneSpec(sparsity=0.5, scorer="obs"),
    PruneSpec(sparsity=0.5, rounds=4),
    PruneSpec(sparsity=0.5, rounds=8),
    PruneSpec(sparsity=0.5, pattern=UNSTRUCTURED, rounds=4),
    PruneSpec(sparsity=0.5, scorer="taylor"),
    PruneSpec(sparsity=0.5, scorer="magnitude"),
    PruneSpec(sparsity=0.5, pattern=UNSTRUCTURED),
    PruneSpec(sparsity=0.5, pattern=UNSTRUCTURED, scope=Scope.LAYERWISE),
    PruneSpec(sparsity=0.5, pattern=UNSTRUCTURED, scope=Scope.ROW),
    PruneSpec(sparsity=0.5, pattern=Pattern.TWO_FOUR),
    PruneSpec(sparsity=0.5, pattern=UNSTRUCTURED, recover=Recover.RECONSTRUCT),
    PruneSpec(sparsity=0.5, pattern=UNSTRUCTURED, recover=Recover.SEQUENTIAL),
    PruneSpec(sparsity=0.5, pattern=Pattern.TWO_FOUR, recover=Recover.RECONSTRUCT),
    PruneSpec(sparsity=0.5, pattern=UNSTRUCTURED, scorer="wanda"),
    PruneSpec(sparsity=0.6),
    PruneSpec(sparsity=0.0, precision=Precision.BFLOAT16),
    PruneSpec(sparsity=0.5, precision=Precision.BFLOAT16),
    PruneSpec(sparsity=0.0, precision=Precision.FLOAT16),
    PruneSpec(sparsity=0.0, precision=Precision.INT8),
    PruneSpec(sparsity=0.5, precision=Precision.INT8),
]


def test_every_spec_has_an_id_of_its_own(bench: Workbench) -> None:
    assert len({identify(bench, spec) for spec in SPECS}) == len(SPECS)


def test_all_specs_of_sparsity_zero_are_the_dense_variant(bench: Workbench) -> None:
    specs = [
        PruneSpec(sparsity=0.0),
        PruneSpec(sparsity=0, scorer="taylor"),
        PruneSpec(sparsity=0, pattern=UNSTRUCTURED),
        PruneSpec(sparsity=0, pattern=UNSTRUCTURED, scope=Scope.ROW),
        PruneSpec(sparsity=0, pattern=Pattern.TWO_FOUR),
    ]
    assert len({identify(bench, spec) for spec in specs}) == 1


@pytest.mark.parametrize(
    ("scorer", "usual"), [("fisher", Scope.GLOBAL), ("cam_cut", Scope.LAYERWISE), ("wanda", Scope.ROW)]
)
def test_the_scorers_own_scope_is_the_same_variant_asked_for_or_not(
    bench: Workbench, scorer: str, usual: Scope
) -> None:
    silent, told = (
        identify(bench, PruneSpec(sparsity=0.5, pattern=UNSTRUCTURED, scorer=scorer, scope=scope))
        for scope in (None, usual)
    )
    assert silent == told


@pytest.mark.parametrize("sparsity", [0.0, 0.5])
def test_other_evaluation_rows_make_another_variant(bench: Workbench, sparsity: float) -> None:
    other = Workbench(bench.base, bench.train, bench.evaluation.subset(range(29)), bench.root)
    spec = PruneSpec(sparsity=sparsity)
    assert identify(other, spec) != identify(bench, spec)


@pytest.mark.parametrize("sparsity", [0.0, 0.5])
def test_another_base_model_makes_another_variant(bench: Workbench, sparsity: float) -> None:
    other = Workbench(replace(bench.base, weights_digest="other"), bench.train, bench.evaluation, bench.root)
    spec = PruneSpec(sparsity=sparsity)
    assert identify(other, spec) != identify(bench, spec)


def test_other_calibration_rows_make_another_variant(bench: Workbench) -> None:
    other = Workbench(bench.base, bench.train.subset(range(39)), bench.evaluation, bench.root)
    assert identify(other, PruneSpec(sparsity=0.5)) != identify(bench, PruneSpec(sparsity=0.5))


def test_a_new_version_of_a_scorer_makes_another_variant(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    before = identify(bench, PruneSpec(sparsity=0.5))
    monkeypatch.setattr(Fisher, "version", Fisher.version + 1)
    assert identify(bench, PruneSpec(sparsity=0.5)) != before


def test_another_way_to_fill_makes_another_variant_of_coarse_encoders_alone(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = [PruneSpec(sparsity=0.0), PruneSpec(sparsity=0.5, pattern=Pattern.UNSTRUCTURED), PruneSpec(sparsity=0.5)]
    before = [identify(bench, spec) for spec in specs]
    monkeypatch.setattr(pruning.identity, "FILL_VERSION", 9)
    assert [identify(bench, spec) == old for spec, old in zip(specs, before, strict=True)] == [True, True, False]
    monkeypatch.setattr(pruning.identity, "is_coarse", lambda shape: False)
    fine = identify(bench, specs[-1])
    monkeypatch.setattr(pruning.identity, "FILL_VERSION", 10)
    assert identify(bench, specs[-1]) == fine
