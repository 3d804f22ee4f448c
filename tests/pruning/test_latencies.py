from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pruning.latencies as module
from pruning.cutting import mask_of, ranking_of
from pruning.encoder import BaseModel
from pruning.errors import CacheError, SpecError
from pruning.identity import identify
from pruning.latencies import Latencies, LatencyFile, measure_latencies
from pruning.masks.structures import Kind, StructureMask, structure_mask
from pruning.pipeline import build_variant
from pruning.slim.convert import dense_mask
from pruning.spec import PruneSpec, Scope
from pruning.speed_target import sparsity_for
from pruning.workbench import Workbench
from tests.pruning.masks.test_structures import SHAPE, curves_of, distinct_scores
from tests.pruning.parts import mask_of as kept

HALF = PruneSpec(sparsity=0.5, scope=Scope.LATENCY)


def table(head_ms: float, neuron_ms: float, *, last: float = 1.0, num_layers: int = SHAPE.num_layers) -> Latencies:
    """Return one in which every head and every neuron takes so long, in the last layer ``last`` times that."""

    def points(share: float) -> dict[Kind, tuple[tuple[int, float], ...]]:
        return {
            Kind.HEAD: ((0, 0.0), (SHAPE.num_heads, share * head_ms * SHAPE.num_heads)),
            Kind.NEURON: ((0, 0.0), (SHAPE.ffn, share * neuron_ms * SHAPE.ffn)),
        }

    sizes = {Kind.HEAD: SHAPE.num_heads, Kind.NEURON: SHAPE.ffn}
    return Latencies(num_layers=num_layers, sizes=sizes, fixed_ms=2.0, inner=points(1.0), last=points(last), machine={})


def kept_table(bench: Workbench, latencies: Latencies) -> None:
    LatencyFile(bench.root, bench.base, bench.evaluation.digest).write(latencies)


@given(seed=st.integers(0, 2**32), sparsity=st.floats(0, 0.9))
def test_where_time_goes_by_weights_the_mask_is_the_usual_one(seed: int, sparsity: float) -> None:
    curves = curves_of(distinct_scores(seed))
    by_weight = table(SHAPE.head_weights / 2**14, SHAPE.neuron_weights / 2**14)  # powers of 2: nothing is rounded
    usual, ours = (structure_mask(curves, SHAPE, sparsity, saved) for saved in (None, by_weight.saved))
    assert torch.equal(usual.heads_LN, ours.heads_LN) and torch.equal(usual.neurons_LF, ours.neurons_LF)


@given(seed=st.integers(0, 2**32), sparsity=st.floats(0.05, 0.9))
def test_what_takes_more_time_goes_sooner(seed: int, sparsity: float) -> None:
    curves = curves_of(distinct_scores(seed))
    heads_dear, neurons_dear = (
        structure_mask(curves, SHAPE, sparsity, table(*each).saved) for each in ((100.0, 1.0), (1.0, 100.0))
    )
    assert int(heads_dear.heads_LN.sum()) <= int(neurons_dear.heads_LN.sum())


def test_what_saves_no_time_goes_last() -> None:
    curves = curves_of(distinct_scores(0))
    mask = structure_mask(curves, SHAPE, 0.6, table(1.0, 1.0, last=0.0).saved)
    assert mask.heads_LN[-1].all() and mask.neurons_LF[-1].all()


@pytest.mark.parametrize("gone", [1, 2, 3])
def test_what_went_before_goes_first_even_where_it_saves_no_time(gone: int) -> None:
    curves = [
        replace(curve, costs=(0.0,) * (gone + 1) + curve.costs[gone + 1 :]) for curve in curves_of(distinct_scores(0))
    ]
    before = sum(curve.weights_after(gone, SHAPE) for curve in curves)
    flat = table(0.0, 0.0).saved
    mask = structure_mask(curves, SHAPE, before / SHAPE.prunable_weights, flat)
    assert mask.head_counts == [SHAPE.num_heads - gone] * SHAPE.num_layers


@given(seed=st.integers(0, 2**32), sparser=st.floats(0, 0.9), denser=st.floats(0, 0.9))
def test_a_sparser_mask_is_part_of_a_denser_one_and_takes_no_longer(seed: int, sparser: float, denser: float) -> None:
    denser, sparser = sorted((denser, sparser))
    curves, latencies = curves_of(distinct_scores(seed)), table(3.0, 0.1, last=0.2)
    one, other = (structure_mask(curves, SHAPE, sparsity, latencies.saved) for sparsity in (denser, sparser))
    assert not (other.heads_LN & ~one.heads_LN).any() and not (other.neurons_LF & ~one.neurons_LF).any()
    assert latencies.of_model(other) <= latencies.of_model(one)


def test_a_model_takes_what_its_sublayers_do_and_what_is_none_of_theirs() -> None:
    latencies = table(3.0, 0.5, last=0.1)
    mask = kept(SHAPE, [[0, 1], [], [2]], [range(16), range(8), range(32)])
    assert latencies.of_model(mask) == pytest.approx(2.0 + 3.0 * (2 + 0.1) + 0.5 * (16 + 8 + 0.1 * 32))


def test_where_a_table_was_measured_is_no_part_of_what_a_mask_depends_on() -> None:
    one = table(1.0, 0.01)
    assert replace(one, machine={"threads": 7}).digest == one.digest
    assert replace(one, fixed_ms=3.0).digest != one.digest


def test_every_size_is_measured_and_more_never_takes_less(bench: Workbench) -> None:
    shape = bench.base.shape
    assert bench.measure_latencies() and not bench.measure_latencies()
    found = bench.latencies
    assert found.fixed_ms > 0.0
    for places in (found.inner, found.last):
        for kind, whole in ((Kind.HEAD, shape.num_heads), (Kind.NEURON, shape.ffn)):
            widths, taken = zip(*places[kind], strict=True)
            assert (widths[0], widths[-1], taken[0]) == (0, whole, 0.0)
            assert list(widths) == sorted(set(widths)) and list(taken) == sorted(taken)


def test_a_size_takes_the_least_of_its_readings_less_what_nothing_takes(
    base: BaseModel, bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = 0

    def timed(model: object, mask: StructureMask, batch: object) -> float:
        nonlocal readings
        readings += 1
        sizes = mask.head_counts[0], mask.neuron_counts[0], mask.head_counts[1], mask.neuron_counts[1]
        disturbed = readings % 7
        return 5.0 + disturbed + sum(each * ms for each, ms in zip(sizes, (4.0, 1.0, 2.0, 0.25), strict=True))

    monkeypatch.setattr(module, "_milliseconds", timed)
    monkeypatch.setattr(module, "SWEEPS", 7)
    found = measure_latencies(base, bench.evaluation.sequences)
    assert found.fixed_ms == 5.0
    assert found.of_sublayer(0, Kind.HEAD, 3) == 12.0 and found.of_sublayer(0, Kind.NEURON, 20) == 20.0
    assert found.of_sublayer(1, Kind.HEAD, 3) == 6.0 and found.of_sublayer(1, Kind.NEURON, 20) == 5.0


def test_without_a_table_nothing_is_cut_and_nothing_measured(bench: Workbench) -> None:
    with pytest.raises(CacheError, match=r"no latencies in .*run 'sparsedial prune SPARSITY --scope latency' first"):
        build_variant(bench, HALF)
    assert not (bench.root / "latencies").exists()


def test_an_altered_table_is_refused_by_name(bench: Workbench) -> None:
    kept_table(bench, table(1.0, 1.0, num_layers=2))
    (path,) = (bench.root / "latencies").iterdir()
    path.write_text(path.read_text().replace("2.0", "3.0"))
    with pytest.raises(CacheError, match=rf"{path.name} does not match its checksum.*measures it again"):
        bench.latencies  # noqa: B018


def test_a_full_disk_is_told(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(module, "write_json", full)
    with pytest.raises(CacheError, match="free space or choose another --store"):
        kept_table(bench, table(1.0, 1.0))


def test_a_variant_is_of_its_table_and_of_no_other(bench: Workbench) -> None:
    usual = identify(bench, replace(HALF, scope=None))
    ids = set()
    for latencies in (table(1.0, 1.0, num_layers=2), table(9.0, 1.0, num_layers=2)):
        kept_table(bench, latencies)
        anew = Workbench(bench.base, bench.train, bench.evaluation, bench.root)
        assert anew.latencies == latencies
        ids.add(identify(anew, HALF))
        assert identify(anew, replace(HALF, scope=None)) == usual
    assert len(ids | {usual}) == 3


def test_a_cut_by_latency_is_a_variant_like_any_other(bench: Workbench) -> None:
    kept_table(bench, table(50.0, 0.01, num_layers=2))
    manifest, usual = build_variant(bench, HALF), build_variant(bench, replace(HALF, scope=None))
    assert manifest.spec == HALF and manifest.achieved_sparsity == pytest.approx(0.5, abs=0.05)
    assert sum(manifest.heads) < sum(usual.heads)


@pytest.mark.parametrize("speedup", [1.2, 2.0, 3.5])
def test_a_speed_up_is_met_by_the_least_sparsity_that_has_it(bench: Workbench, speedup: float) -> None:
    latencies = table(3.0, 0.2, num_layers=2)
    kept_table(bench, latencies)
    found = sparsity_for(bench, HALF, speedup)
    curves = ranking_of(bench, HALF)

    def milliseconds_at(sparsity: float) -> float:
        mask = mask_of(bench, curves, replace(HALF, sparsity=sparsity))
        assert isinstance(mask, StructureMask)
        return latencies.of_model(mask)

    enough = latencies.of_model(dense_mask(bench.base.shape)) / speedup
    assert milliseconds_at(found) <= enough < milliseconds_at(found - 0.001)


def test_a_speed_up_that_cannot_be_is_refused_naming_the_most(bench: Workbench) -> None:
    kept_table(bench, table(3.0, 0.2, num_layers=2))
    with pytest.raises(SpecError, match=r"speedup 50 is beyond every cut: at sparsity 0\.\d+ it is \d+\.\d+"):
        sparsity_for(bench, HALF, 50.0)
    for speedup in (1.0, float("nan")):
        with pytest.raises(SpecError, match=f"speedup must be above 1.*got {speedup}"):
            sparsity_for(bench, HALF, speedup)
    with pytest.raises(SpecError, match="scope='latency'; got scope=None"):
        sparsity_for(bench, replace(HALF, scope=None), 2.0)
    with pytest.raises(SpecError, match="rounds=3 rank anew on the way"):
        sparsity_for(bench, replace(HALF, rounds=3), 2.0)
