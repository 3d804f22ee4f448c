"""``sparsedial import``: from a sparse checkpoint to a variant that a change by the builder finds."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from pruning.encoder import load_base_model
from pruning.imported import own_zeros
from pruning.scores import CHOICES
from pruning.spec import IMPORTED, PruneSpec
from pruning.variants import Manifest
from service.admin import parse_spec
from service.builder import VariantBuilder
from service.cli import app
from service.sources import Sources
from tests.conftest import write_tiny_model

ASKED = {"sparsity": 0.5, "pattern": "structured", "scorer": IMPORTED}


@pytest.fixture(autouse=True)
def usual_priority(own_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A builder in the test's own process leaves that process's priority alone."""
    monkeypatch.setattr("service.builder.yield_cpu", lambda: None)


@pytest.fixture
def sources(tiny_rows: tuple[Path, Path], tmp_path: Path) -> Sources:
    """A model half of whose heads and neurons are zeroed."""
    model = write_tiny_model(tmp_path / "sparse")
    tensors = load_file(model / "model.safetensors")
    for name, tensor in tensors.items():
        if ".attention.self.value." in name:
            tensor[:16] = 0
        if ".intermediate.dense." in name:
            tensor[32:] = 0
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    return Sources(model, *tiny_rows, tmp_path / "store")


def run(sources: Sources, *arguments: str) -> Result:
    given = [sources.model, "--train", sources.train, "--eval", sources.evaluation, "--store", sources.store]
    return CliRunner().invoke(app, [str(word) for word in ("import", *given, *arguments)], catch_exceptions=False)


def test_what_was_imported_is_what_the_admin_endpoint_serves(sources: Sources) -> None:
    result = run(sources, "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert (answer["zeros"]["pattern"], answer["zeros"]["heads"]) == ("structured", [2, 2])
    assert answer["zeros"]["by_tensor"]["layers.0.value.weight"] == 0.5
    dense, level = answer["levels"]
    assert (level["scorer"], level["recover"], level["agreement"]) == (IMPORTED, "none", 1.0)
    assert level["macs"] < dense["macs"]

    assert not (sources.store / "calibration").exists()

    builder = VariantBuilder(sources, threads=1, keep_variants=9)
    spec = parse_spec(ASKED | {"sparsity": level["requested_sparsity"]}, CHOICES, {})
    built = builder.build(spec)
    assert isinstance(built, Manifest) and built.variant_id == level["variant"]


def test_the_table_says_how_to_ask_for_it(sources: Sources) -> None:
    result = run(sources)
    assert result.exit_code == 0, result.output
    own = own_zeros(load_base_model(sources.model))
    assert "zeros by tensor" in result.stdout and "imported, structured, none" in result.stdout
    assert f"sparsedial dial {own.asked_for:g} --pattern structured --scorer imported" in result.stderr


def test_a_dense_checkpoint_is_refused(sources: Sources, tiny_model_dir: Path) -> None:
    dense = Sources(tiny_model_dir, sources.train, sources.evaluation, sources.store)
    result = run(dense)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "is dense" in result.stderr and "sparsedial prune" in result.stderr


def test_an_imported_cut_is_trained_with_its_zeros(sources: Sources, tiny_rows: tuple[Path, Path]) -> None:
    spec = PruneSpec.from_dict(ASKED)
    own = own_zeros(load_base_model(sources.model))
    given = ["--train", sources.train, "--eval", sources.evaluation, "--store", sources.store]
    words = ["recover", sources.model, *given, "--rows", sources.train, "--steps", 2, "--batch-rows", 8, "--json"]
    cut = ["--sparsity", own.asked_for, "--pattern", "structured", "--scorer", spec.scorer]
    result = CliRunner().invoke(app, [str(word) for word in (*words, *cut)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert not (sources.store / "calibration").exists()
    before, after = json.loads(result.stdout)["levels"][1:]
    assert (after["scorer"], after["recover"]) == (IMPORTED, "distill")
    assert after["achieved_sparsity"] == before["achieved_sparsity"]
    assert torch.isfinite(torch.tensor(after["metric_value"]))
