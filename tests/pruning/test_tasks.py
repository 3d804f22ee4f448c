"""Every task, end to end: scored, cut by every scorer, reconstructed, judged, compared; and what the score is of."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pruning import sequential
from pruning.architectures import ARCHITECTURES
from pruning.capture import capture
from pruning.encoder import BaseModel, load_base_model
from pruning.errors import DataError
from pruning.evaluation import evaluate
from pruning.frontier import frontier_rows, measure_side_by_side
from pruning.heads import Head
from pruning.pipeline import build_variant, cut
from pruning.prediction import judged_logits, predict_logits
from pruning.recovery.distillation import recover
from pruning.recovery.recipe import Recipe
from pruning.scores import SCORERS
from pruning.slim.bert import Site
from pruning.slim.convert import build_slim, dense_mask
from pruning.slim.quantized import multiplies_integers
from pruning.spec import STRUCTURES_ALONE, Pattern, Precision, PruneSpec, Recover
from pruning.tasks import TASKS
from pruning.workbench import Workbench
from tests.pruning.parts import dense_model, logits_of, sequences_of
from tests.pruning.zoo import library_model, library_outputs, write_model, write_task_rows

UNTRAINED = (Recover.RECONSTRUCT, Recover.SEQUENTIAL, Recover.NONE)
METRICS = {Head.LABEL: "accuracy", Head.SCORE: "pearson", Head.TAGS: "entity_f1", Head.SPAN: "f1"}
Open = Callable[[str, Head], Workbench]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Open:
    """Calibrated workbenches by architecture and head, each made once."""
    made: dict[tuple[str, Head], Workbench] = {}

    def open_(kind: str, head: Head) -> Workbench:
        if (kind, head) not in made:
            folder = tmp_path_factory.mktemp("bench")
            rows = [write_task_rows(folder / f"{seed}.jsonl", head, 40 - 10 * seed, seed=seed) for seed in (0, 1)]
            bench = Workbench.open(write_model(folder / "model", kind, head), *rows, folder / "store")
            assert bench.calibrate()
            made[kind, head] = bench
        return made[kind, head]

    return open_


@pytest.mark.parametrize(("scorer", "head"), list(product(SCORERS, Head)))
def test_every_scorer_cuts_a_model_of_every_task(opened: Open, scorer: str, head: Head) -> None:
    bench = opened("bert", head)
    dense = build_variant(bench, PruneSpec(sparsity=0.0))
    assert dense.evaluation.metric.name == METRICS[head]
    assert dense.evaluation.agreement == 1.0
    specs = [PruneSpec(sparsity=0.5, scorer=scorer, recover=recover) for recover in UNTRAINED]
    if scorer not in STRUCTURES_ALONE:
        specs += [
            PruneSpec(sparsity=0.5, scorer=scorer, pattern=Pattern.UNSTRUCTURED),
            PruneSpec(sparsity=0.5, scorer=scorer, pattern=Pattern.UNSTRUCTURED, recover=Recover.RECONSTRUCT),
        ]
    for spec in specs:
        manifest = build_variant(bench, spec)
        assert manifest.evaluation.rows == 30
        outputs = predict_logits(
            build_slim(bench.base, bench.store.load(manifest.variant_id)[1]), bench.evaluation.sequences
        )
        assert evaluate(outputs, bench.reference(), bench.evaluation).metric == manifest.evaluation.metric


@pytest.mark.parametrize(("head", "precision"), list(product(Head, [Precision.BFLOAT16, Precision.INT8])))
def test_a_cut_of_any_task_in_cheaper_numbers_answers_nearly_as_in_float32(
    opened: Open, head: Head, precision: Precision
) -> None:
    if precision is Precision.INT8 and not multiplies_integers():
        pytest.skip("this processor does not multiply integers")
    bench = opened("electra", head)
    sequences = bench.evaluation.sequences
    exact, cheap = (
        predict_logits(build_slim(bench.base, cut(bench, PruneSpec(sparsity=0.3, precision=numbers))[0]), sequences)
        for numbers in (Precision.FLOAT32, precision)
    )
    assert exact.shape == cheap.shape
    assert (cheap - exact).abs().max() < 0.1 * (exact.max() - exact.min())


@pytest.mark.parametrize(("kind", "head"), [pair for pair in product(ARCHITECTURES, Head) if pair[0] != "bert"])
def test_every_architecture_is_cut_for_every_task(opened: Open, kind: str, head: Head) -> None:
    bench = opened(kind, head)
    assert build_variant(bench, PruneSpec(sparsity=0.0)).evaluation.agreement == 1.0
    assert build_variant(bench, PruneSpec(sparsity=0.5)).achieved_sparsity == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("head", Head)
def test_the_frontier_names_the_metric_of_the_task(opened: Open, head: Head) -> None:
    bench = opened("bert", head)
    manifests = [build_variant(bench, PruneSpec(sparsity=sparsity)) for sparsity in (0.0, 0.5)]
    measure_side_by_side(bench, manifests)
    for row, manifest in zip(
        frontier_rows(bench.store, only=[m.variant_id for m in manifests]), manifests, strict=True
    ):
        metric = manifest.evaluation.metric
        assert (row["metric"], row["metric_value"]) == (METRICS[head], metric.value)
        assert row["metric_interval"] == [metric.low, metric.high]
        assert row["accuracy"] == (metric.value if head is Head.LABEL else None)
        assert row["speedup"] is not None


@pytest.mark.parametrize("head", Head)
def test_a_mask_gradient_is_that_of_the_tasks_loss_on_the_librarys_model(opened: Open, head: Head) -> None:
    bench = opened("bert", head)
    base, rows = bench.base, bench.train.subset(range(0, 36, 4))
    captured = capture(base, rows, micro_batch=len(rows), progress=lambda done, total: None)
    model = library_model(base)
    with torch.enable_grad():
        outputs = library_outputs(base, rows.sequences, model=model)
        TASKS[head].loss(outputs, rows.labels, [len(sequence.ids) for sequence in rows.sequences]).backward()
    for layer in range(base.shape.num_layers):
        block = model.get_submodule(f"bert.encoder.layer.{layer}")
        products = []
        for projection in (block.get_submodule("attention.output.dense"), block.get_submodule("output.dense")):
            weight = projection.get_parameter("weight")
            assert weight.grad is not None
            products.append((weight * weight.grad).sum(0).detach())
        heads = products[0].view(base.shape.num_heads, -1).sum(1)
        torch.testing.assert_close(captured.head_gradients_LN[0][layer], heads, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(captured.neuron_gradients_LF[0][layer], products[1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("head", Head)
def test_the_last_layer_computes_every_token_where_the_head_reads_them(opened: Open, head: Head) -> None:
    bench = opened("bert", head)
    tokens = sum(len(sequence.ids) for sequence in bench.train.sequences)
    assert bench.calibration.tokens_L.tolist() == [tokens, len(bench.train) if head.pooled else tokens]
    gram = bench.calibration.grams[1, Site.FFN]
    assert gram.shape == (64, 64)


def test_gradients_of_a_row_do_not_depend_on_who_shares_its_batch(opened: Open) -> None:
    for head in Head:
        bench = opened("bert", head)
        rows = bench.train.subset(range(0, 36, 4))
        together = capture(bench.base, rows, micro_batch=1, progress=lambda done, total: None)
        alone = capture(bench.base, rows.subset([5]), micro_batch=1, progress=lambda done, total: None)
        expected = alone.neuron_gradients_LF[0]
        torch.testing.assert_close(together.neuron_gradients_LF[5], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("head", [Head.TAGS, Head.SPAN])
def test_outputs_of_every_token_come_back_in_the_order_of_the_sequences(opened: Open, head: Head) -> None:
    base = opened("bert", head).base
    sequences = sequences_of([5, 48, 2, 17, 17, 1, 30, 5] * 9, vocabulary=base.shape.vocabulary)
    model = dense_model(base)
    alone = torch.cat([logits_of(model, [sequence]) for sequence in sequences])
    torch.testing.assert_close(predict_logits(model, sequences), alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("head", [Head.SCORE, Head.TAGS, Head.SPAN])
def test_what_is_no_label_of_a_text_is_never_screened(
    opened: Open, head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pruning.prediction.multiplies_bfloat16", lambda: True)
    bench = opened("bert", head)
    outputs, screened = judged_logits(dense_model(bench.base), bench.evaluation.sequences)
    assert not screened
    assert torch.equal(outputs, predict_logits(dense_model(bench.base), bench.evaluation.sequences))


def test_every_task_has_a_calibration_of_its_own(opened: Open) -> None:
    keys = [opened("bert", head).key for head in Head]
    assert len({key.loss for key in keys}) == len({key.architecture for key in keys}) == len(Head)


@pytest.mark.parametrize(("head", "rows"), [pair for pair in product(Head, Head) if pair[0] is not pair[1]])
def test_rows_for_another_head_are_refused_naming_both(tmp_path: Path, head: Head, rows: Head) -> None:
    model = write_model(tmp_path / "model", "bert", head)
    path = write_task_rows(tmp_path / "rows.jsonl", rows, 3)
    with pytest.raises(DataError, match=f"line 1: .* makes this a row for {rows}, but the model is one for {head}"):
        Workbench.open(model, path, path, tmp_path / "store")


def test_the_head_is_part_of_what_identifies_a_model(opened: Open) -> None:
    base: BaseModel = opened("bert", Head.TAGS).base
    other = replace(base, shape=replace(base.shape, head=Head.SPAN))
    assert other.digest != base.digest
    assert load_base_model(base.path).digest == base.digest


@pytest.mark.parametrize("head", Head)
def test_distillation_makes_a_variant_of_every_task(opened: Open, head: Head) -> None:
    bench = opened("bert", head)
    manifest, recovered = recover(bench, PruneSpec(sparsity=0.5), bench.train, Recipe(steps=2, batch_rows=8))
    assert manifest.evaluation.metric.name == METRICS[head]
    assert -1.0 <= recovered.training["first_score"] <= recovered.training["best_score"] <= 1.0


def test_distillation_on_rows_for_another_head_is_refused(opened: Open) -> None:
    rows = opened("bert", Head.SPAN).train
    with pytest.raises(DataError, match="is a model for token-classification, and the rows are for question-answering"):
        recover(opened("bert", Head.TAGS), PruneSpec(sparsity=0.5), rows, Recipe(steps=1))


@pytest.mark.parametrize("head", Head)
def test_sequential_recovery_solves_the_last_layer_on_the_rows_that_the_head_reads(
    opened: Open, monkeypatch: pytest.MonkeyPatch, head: Head
) -> None:
    bench = opened("bert", head)
    solve, rows_of = sequential._Solver.solved, dict[str, int]()

    def counting(
        solver: sequential._Solver, name: str, layers: dict[str, Tensor], pairs: Iterable[tuple[Tensor, Tensor]]
    ) -> dict[str, Tensor]:
        kept = list(pairs)
        rows_of[name] = sum(len(inputs_RI) for inputs_RI, _ in kept)
        return solve(solver, name, layers, kept)

    monkeypatch.setattr(sequential._Solver, "solved", counting)
    sequential.recover_sequentially(bench.base, dense_mask(bench.base.shape), bench.train.sequences)
    lengths = [len(sequence.ids) for sequence in bench.train.sequences]
    read = len(lengths) if head in (Head.LABEL, Head.SCORE) else sum(lengths)
    assert rows_of[f"layers.{bench.base.shape.num_layers - 1}.attention_output"] == read
