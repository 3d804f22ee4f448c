from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from pruning import memory, sequential
from pruning.encoder import BaseModel
from pruning.errors import HostMemoryError
from pruning.masks.structures import StructureMask
from pruning.masks.weights import unstructured_mask
from pruning.memory import sequential_bytes
from pruning.reconstruction import RIDGE
from pruning.sequential import recover_sequentially
from pruning.slim.bert import Site
from pruning.slim.convert import build_slim, dense_mask, slim_layers, zeroed_layers
from pruning.slim.packed import PackedBatch
from pruning.tokenization import Encoded
from tests.pruning.parts import mask_of, sequences_of

MATRICES = [f"layers.{layer}.{slot}" for layer in (0, 1) for slot in ("qkv", "attention_output", "ffn_in", "ffn_out")]
NORM_AFTER = {"attention_output": "attention_norm", "ffn_out": "ffn_norm"}


@pytest.fixture(scope="module")
def rows(base: BaseModel) -> list[Encoded]:
    return sequences_of(range(4, 44), vocabulary=base.shape.vocabulary)


@pytest.fixture(scope="module")
def half(base: BaseModel) -> StructureMask:
    return mask_of(base.shape, [[0, 2], [1, 3]], [range(0, 64, 2), range(32)])


def seen(base: BaseModel, layers: dict[str, Tensor], rows: Sequence[Encoded]) -> dict[str, Tensor]:
    """Return the inputs of every matrix and norm of a model over all rows, by name, in float64."""
    model, values = build_slim(base, layers), {}

    def keep(name: str) -> Any:
        return lambda _, inputs: values.__setitem__(name, inputs[0].double())

    def tap(layer: int, site: Site, inputs_RI: Tensor, sequence_R: Tensor) -> Tensor:
        slot = {Site.ATTENTION: "attention_output", Site.FFN: "ffn_out"}.get(site)
        if slot:
            values[f"layers.{layer}.{slot}"] = inputs_RI.double()
        return inputs_RI

    for index, layer in enumerate(model.layers):
        layer.register_forward_pre_hook(keep(f"layers.{index}.qkv"))
        layer.ffn_in.register_forward_pre_hook(keep(f"layers.{index}.ffn_in"))
        for norm in NORM_AFTER.values():
            getattr(layer, norm).register_forward_pre_hook(keep(f"layers.{index}.{norm}"))
    with torch.no_grad():
        model(PackedBatch.from_sequences(rows), tap)
    return values


def affine(layers: dict[str, Tensor], name: str, inputs_RI: Tensor) -> Tensor:
    return inputs_RI @ layers[f"{name}.weight"].double().T + layers[f"{name}.bias"].double()


def ridge_regression(inputs_RI: Tensor, targets_RO: Tensor, towards_OI: Tensor, strength: Tensor) -> Tensor:
    """Return [weight, bias] by a solver that forms no Gram matrix."""
    width = inputs_RI.shape[1]
    root = strength.sqrt()
    ones, zeros = inputs_RI.new_ones(len(inputs_RI), 1), inputs_RI.new_zeros(width, 1)
    design = torch.cat([torch.cat([inputs_RI, ones], 1), torch.cat([root * torch.eye(width).double(), zeros], 1)])
    return torch.linalg.lstsq(design, torch.cat([targets_RO, root * towards_OI.T])).solution.T


def targets_of(
    name: str,
    whole: Mapping[str, Tensor],
    below: Mapping[str, Tensor],
    dense: Mapping[str, Tensor],
    here: Mapping[str, Tensor],
) -> Tensor:
    """What a matrix shall give: the dense one's outputs, or before a norm what its sum with the residual lacks."""
    layer, slot = name.rsplit(".", 1)
    if slot not in NORM_AFTER:
        return affine(whole, name, dense[name])
    norm = f"{layer}.{NORM_AFTER[slot]}"
    return dense[norm] - (here[norm] - affine(below, name, here[name]))


def test_every_matrix_is_the_ridge_regression_of_its_target_on_what_the_cut_model_gives_it(
    base: BaseModel, rows: list[Encoded], half: StructureMask
) -> None:
    solved, cut = recover_sequentially(base, half, rows), slim_layers(base, half)
    dense = seen(base, slim_layers(base, dense_mask(base.shape)), rows)
    below = dict(cut)
    for name in MATRICES:
        here = seen(base, below, rows)
        targets = targets_of(name, cut, below, dense, here)
        strength = RIDGE * here[name].square().sum(0).mean()
        expected = ridge_regression(here[name], targets, cut[f"{name}.weight"].double(), strength)
        got = torch.cat([solved[f"{name}.weight"], solved[f"{name}.bias"][:, None]], 1).double()
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)
        below |= {f"{name}.{part}": solved[f"{name}.{part}"] for part in ("weight", "bias")}


def test_nothing_cut_gives_the_dense_model_back(base: BaseModel, rows: list[Encoded]) -> None:
    solved = recover_sequentially(base, dense_mask(base.shape), rows)
    dense = slim_layers(base, dense_mask(base.shape))
    assert solved.keys() == dense.keys()
    for name, tensor in solved.items():
        torch.testing.assert_close(tensor, dense[name], rtol=0, atol=1e-3)


def test_an_empty_sublayer_adds_the_mean_of_what_its_sums_lack(base: BaseModel, rows: list[Encoded]) -> None:
    mask = mask_of(base.shape, [[], range(4)], [range(64), []])
    solved = recover_sequentially(base, mask, rows)
    assert tuple(solved["layers.0.attention_output.weight"].shape) == (base.shape.hidden, 0)
    assert tuple(solved["layers.1.ffn_out.weight"].shape) == (base.shape.hidden, 0)
    wanted = seen(base, slim_layers(base, dense_mask(base.shape)), rows)
    given = seen(base, solved, rows)
    for name in ("layers.0.attention_norm", "layers.1.ffn_norm"):
        torch.testing.assert_close(given[name].mean(0), wanted[name].mean(0), rtol=0, atol=1e-5)


def test_of_single_weights_every_row_is_the_ridge_regression_over_those_that_it_kept(
    base: BaseModel, rows: list[Encoded]
) -> None:
    scores = {name: weight.abs() for name, weight in base.prunable_weights().items()}
    mask = unstructured_mask(scores, 0.6)
    solved, cut = recover_sequentially(base, mask, rows), zeroed_layers(base, mask)
    whole = slim_layers(base, dense_mask(base.shape))
    dense = seen(base, whole, rows)
    below = dict(cut)
    for name in MATRICES:
        here = seen(base, below, rows)
        targets = targets_of(name, whole, below, dense, here)
        weight_OI = solved[f"{name}.weight"]
        assert torch.equal(weight_OI == 0, cut[f"{name}.weight"] == 0)
        strength = RIDGE * here[name].square().sum(0).mean()
        for row in range(0, len(weight_OI), 5):
            kept = weight_OI[row].nonzero().flatten()
            towards = cut[f"{name}.weight"][row, kept].double()
            expected = ridge_regression(here[name][:, kept], targets[:, row, None], towards[None], strength)[0]
            got = torch.cat([weight_OI[row, kept], solved[f"{name}.bias"][row, None]]).double()
            torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)
        below |= {f"{name}.{part}": solved[f"{name}.{part}"] for part in ("weight", "bias")}


def test_norms_stay_as_they_were(base: BaseModel, rows: list[Encoded], half: StructureMask) -> None:
    solved, cut = recover_sequentially(base, half, rows), slim_layers(base, half)
    assert all(torch.equal(solved[name], cut[name]) for name in cut if "norm" in name)


def test_how_many_rows_a_batch_has_does_not_matter(
    base: BaseModel, rows: list[Encoded], half: StructureMask, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = recover_sequentially(base, half, rows)
    monkeypatch.setattr(sequential, "BATCH_SEQUENCES", 7)
    for name, tensor in recover_sequentially(base, half, rows).items():
        torch.testing.assert_close(tensor, together[name], rtol=0, atol=1e-3)


def test_inputs_that_are_never_active_leave_finite_weights(base: BaseModel, rows: list[Encoded]) -> None:
    silent = {name: tensor * 0 if "value" in name else tensor for name, tensor in base.tensors.items()}
    mute = BaseModel(**{field: getattr(base, field) for field in base.__slots__} | {"tensors": silent})
    solved = recover_sequentially(mute, mask_of(base.shape, [[0], [1]], [range(64), range(32)]), rows)
    assert all(torch.isfinite(tensor).all() for tensor in solved.values())


def test_there_is_a_breath_after_every_batch_of_every_matrix(
    base: BaseModel, rows: list[Encoded], half: StructureMask
) -> None:
    breaths: list[None] = []
    recover_sequentially(base, half, rows, lambda: breaths.append(None))
    assert len(breaths) == 2 * len(MATRICES)


def test_the_base_model_is_left_as_it_was(base: BaseModel, rows: list[Encoded], half: StructureMask) -> None:
    before = {name: tensor.clone() for name, tensor in base.tensors.items()}
    recover_sequentially(base, half, rows)
    assert all(torch.equal(base.tensors[name], tensor) for name, tensor in before.items())


def test_rows_that_would_not_fit_are_refused_before_anything_is_solved(
    base: BaseModel, rows: list[Encoded], half: StructureMask, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = sequential_bytes(base.shape, [len(row.ids) for row in rows], sequential.BATCH_SEQUENCES)
    monkeypatch.setattr(memory, "available_bytes", lambda: needed - 1)
    with pytest.raises(HostMemoryError, match=f"sequential recovery needs about {needed} bytes"):
        recover_sequentially(base, half, rows)
