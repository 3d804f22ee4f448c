"""Variants in other numbers than float32."""

from dataclasses import replace

import pytest
import torch

import pruning.cutting
import pruning.pipeline
import pruning.prediction
import pruning.scores
import pruning.slim.quantized
import pruning.workbench
from pruning.errors import PrecisionError
from pruning.pipeline import build_variant, cut
from pruning.prediction import predict_logits
from pruning.quantization import quantize
from pruning.slim.convert import build_slim
from pruning.slim.packed import PackedBatch
from pruning.slim.quantized import multiplies_integers
from pruning.spec import Precision, PruneSpec
from pruning.workbench import Workbench


@pytest.mark.parametrize("sparsity", [0.0, 0.5])
@pytest.mark.parametrize(
    ("precision", "dtype"), [(Precision.BFLOAT16, torch.bfloat16), (Precision.FLOAT16, torch.float16)]
)
def test_another_precision_is_the_same_cut_in_other_numbers(
    bench: Workbench, sparsity: float, precision: Precision, dtype: torch.dtype
) -> None:
    precisions = (Precision.FLOAT32, precision)
    exact, low = (build_variant(bench, PruneSpec(sparsity=sparsity, precision=one)) for one in precisions)
    assert (low.heads, low.neurons, low.achieved_sparsity) == (exact.heads, exact.neurons, exact.achieved_sparsity)
    assert low.cost == replace(exact.cost, bytes=exact.cost.bytes // 2)
    weights, rounded = (bench.store.load(manifest.variant_id)[1] for manifest in (exact, low))
    for name, weight in weights.items():
        assert rounded[name].dtype == dtype
        torch.testing.assert_close(rounded[name], weight.to(dtype))
    model = build_slim(bench.base, rounded)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    logits = predict_logits(model, bench.evaluation.sequences)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(
        logits, predict_logits(build_slim(bench.base, weights), bench.evaluation.sequences), atol=0.1, rtol=0.1
    )
    assert float((logits.argmax(1) == bench.evaluation.labels).double().mean()) == low.evaluation.accuracy
    assert not low.evaluation.screened


@pytest.mark.skipif(not multiplies_integers(), reason="this processor multiplies no 8-bit integers")
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.95])
def test_an_int8_variant_is_nearly_the_same_cut_in_a_quarter_of_the_bytes(bench: Workbench, sparsity: float) -> None:
    exact, low = (
        build_variant(bench, PruneSpec(sparsity=sparsity, precision=one)) for one in (Precision.FLOAT32, Precision.INT8)
    )
    assert (low.heads, low.neurons, low.achieved_sparsity) == (exact.heads, exact.neurons, exact.achieved_sparsity)
    assert low.cost.macs == exact.cost.macs
    weights, integers = (bench.store.load(manifest.variant_id)[1] for manifest in (exact, low))
    for manifest, tensors in ((exact, weights), (low, integers)):
        held = build_slim(bench.base, tensors).state_dict().values()
        assert manifest.cost.bytes == sum(tensor.nbytes for tensor in held)
    assert low.cost.bytes < exact.cost.bytes
    for name in weights:
        matrix = name.endswith("weight") and "norm" not in name
        assert integers[name].dtype == (torch.int8 if matrix else torch.float32)
    model = build_slim(bench.base, integers)
    logits = predict_logits(model, bench.evaluation.sequences)
    reals = predict_logits(build_slim(bench.base, weights), bench.evaluation.sequences)
    assert (logits - reals).abs().mean() < 0.1 * reals.std()
    assert not low.evaluation.screened
    with pytest.raises(PrecisionError, match="a tap sees real values"):
        model(PackedBatch.from_sequences(bench.evaluation.sequences[:1]), lambda layer, site, values_RW, _: values_RW)
    alone = predict_logits(model, bench.evaluation.sequences[:1])
    torch.testing.assert_close(alone, logits[:1], atol=1e-5, rtol=1e-5)


def test_int8_is_refused_where_the_processor_multiplies_no_integers(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning.slim.quantized, "multiplies_integers", lambda: False)
    monkeypatch.setattr(pruning.cutting, "structure_mask", None)  # no cut is begun
    with pytest.raises(PrecisionError, match="needs an x86-64 processor with VNNI"):
        build_variant(bench, PruneSpec(sparsity=0.3, precision=Precision.INT8))


@pytest.mark.skipif(not multiplies_integers(), reason="this processor multiplies no 8-bit integers")
def test_int8_is_refused_where_an_input_is_not_finite(bench: Workbench) -> None:
    layers, _, _ = cut(bench, PruneSpec(sparsity=0.3))
    layers["layers.1.attention_norm.weight"] = torch.full_like(layers["layers.1.attention_norm.weight"], torch.nan)
    with pytest.raises(PrecisionError, match=r"inputs of layers\.1\.ffn_in are not finite on the calibration rows"):
        quantize(bench.base, layers, bench.train.sequences)


@pytest.mark.skipif(not multiplies_integers(), reason="this processor multiplies no 8-bit integers")
def test_a_breath_is_taken_between_the_batches_that_ranges_are_read_from(bench: Workbench) -> None:
    breaths: list[None] = []
    cut(bench, PruneSpec(sparsity=0.3, precision=Precision.INT8), lambda: breaths.append(None))
    assert breaths
