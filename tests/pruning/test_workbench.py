import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import pruning.workbench
from pruning.data import LabelledSet
from pruning.encoder import BaseModel
from pruning.errors import CacheError, DataError, ModelError, StoreError
from pruning.workbench import Workbench
from tests.conftest import PIECES, write_rows, write_tiny_model
from tests.pruning.parts import dense_model, everything_under, flip_byte, logits_of

Rows = tuple[Path, Path]


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("this should have come from the disk")


def reference_file(bench: Workbench) -> Path:
    bench.reference()
    (path,) = (bench.root / "references").rglob("*.safetensors")
    return path


def opened_again(bench: Workbench) -> Workbench:
    return Workbench(bench.base, bench.train, bench.evaluation, bench.root)


def test_opening_loads_model_and_rows_and_writes_nothing(tiny_model_dir: Path, tiny_rows: Rows, tmp_path: Path) -> None:
    bench = Workbench.open(tiny_model_dir, *tiny_rows, tmp_path / "store")
    assert (len(bench.train), len(bench.evaluation)) == (40, 30)
    assert everything_under(tmp_path) == []


def test_evaluation_rows_stay_in_the_order_of_their_file(tiny_model_dir: Path, tiny_rows: Rows, tmp_path: Path) -> None:
    bench = Workbench.open(tiny_model_dir, *tiny_rows, tmp_path)
    assert bench.evaluation.labels.tolist() == [index % 2 for index in range(30)]


def test_at_most_2048_rows_are_used_for_calibration(tiny_model_dir: Path, tiny_rows: Rows, tmp_path: Path) -> None:
    many = write_rows(tmp_path / "many.jsonl", 2_100, seed=5)
    assert len(Workbench.open(tiny_model_dir, many, tiny_rows[1], tmp_path).train) == 2_048


def test_rows_that_score_nothing_are_kept_apart_where_enough_are_left(
    tiny_model_dir: Path, tiny_rows: Rows, tmp_path: Path
) -> None:
    many = write_rows(tmp_path / "many.jsonl", 600, seed=5)
    apart = Workbench.open(tiny_model_dir, many, tiny_rows[1], tmp_path, size=40).apart
    assert apart is not None and len(apart) == 560
    assert Workbench.open(tiny_model_dir, many, tiny_rows[1], tmp_path, size=100).apart is None


def test_a_seed_and_a_size_draw_other_rows_and_have_calibrations_of_their_own(
    tiny_model_dir: Path, tiny_rows: Rows, tmp_path: Path
) -> None:
    usual = Workbench.open(tiny_model_dir, *tiny_rows, tmp_path)
    drawn = [Workbench.open(tiny_model_dir, *tiny_rows, tmp_path, seed=seed, size=20) for seed in (0, 1)]
    assert [(bench.key.seed, bench.key.num_rows) for bench in drawn] == [(0, 20), (1, 20)]
    assert len({bench.key.rows for bench in (usual, *drawn)}) == 3
    assert usual.key == Workbench.open(tiny_model_dir, *tiny_rows, tmp_path, seed=0, size=2_048).key


def test_rows_longer_than_the_model_reads_are_cut(tiny_model_dir: Path, tiny_rows: Rows, tmp_path: Path) -> None:
    long = tmp_path / "long.jsonl"
    long.write_text("".join(json.dumps({"text": "good film " * 60, "label": label}) + "\n" for label in (0, 1)))
    bench = Workbench.open(tiny_model_dir, long, long, tmp_path / "store")
    assert {len(sequence.ids) for sequence in bench.train.sequences} == {bench.base.max_length}
    assert bench.calibrate()
    assert bench.reference().shape == (2, 2)


def test_a_model_that_cannot_be_loaded_is_refused(tiny_rows: Rows, tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        Workbench.open(tmp_path / "absent", *tiny_rows, tmp_path)


NUMBER = len(PIECES)
"""The first id that the tiny model does not know."""


def add_a_word(tokenizer: dict[str, Any]) -> None:
    tokenizer["model"]["vocab"]["beyond"] = NUMBER


def add_a_special_token(tokenizer: dict[str, Any]) -> None:
    token = {"id": NUMBER, "content": "[NEW]", "special": True, "normalized": False}
    tokenizer["added_tokens"] = [token | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)]


def renumber_the_first_token(tokenizer: dict[str, Any]) -> None:
    tokenizer["post_processor"]["special_tokens"]["[CLS]"]["ids"] = [NUMBER]


@pytest.mark.parametrize("change", [add_a_word, add_a_special_token, renumber_the_first_token])
def test_a_tokenizer_of_a_larger_vocabulary_is_refused_naming_both_numbers(
    tiny_model_dir: Path, tiny_rows: Rows, tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model_dir, model)
    values = json.loads((model / "tokenizer.json").read_text())
    change(values)
    (model / "tokenizer.json").write_text(json.dumps(values))
    numbers = f"gives ids up to {NUMBER}, the model has vocab_size {NUMBER} .*"
    with pytest.raises(ModelError, match=numbers + r"; put the tokenizer\.json there"):
        Workbench.open(model, *tiny_rows, tmp_path / "store")


def test_rows_that_cannot_be_used_are_refused(tiny_model_dir: Path, tiny_rows: Rows, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        Workbench.open(tiny_model_dir, tiny_rows[0], tmp_path / "absent.jsonl", tmp_path)


def test_the_calibration_is_made_once(
    tiny_model_dir: Path, tiny_rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Workbench.open(tiny_model_dir, *tiny_rows, tmp_path).calibrate()
    monkeypatch.setattr(pruning.workbench, "capture", refuse)
    assert not Workbench.open(tiny_model_dir, *tiny_rows, tmp_path).calibrate()


def test_a_missing_calibration_is_refused_and_never_made_silently(
    tiny_model_dir: Path, tiny_rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning.workbench, "capture", refuse)
    with pytest.raises(CacheError, match="run 'sparsedial prepare' first"):
        _ = Workbench.open(tiny_model_dir, *tiny_rows, tmp_path).calibration


def test_the_calibration_of_another_model_is_refused_naming_the_weights(
    bench: Workbench, tiny_rows: Rows, tmp_path: Path
) -> None:
    other = write_tiny_model(tmp_path / "other", seed=7)
    with pytest.raises(CacheError, match="the nearest one there has weights: "):
        _ = Workbench.open(other, *tiny_rows, bench.root).calibration


def test_the_calibration_of_other_rows_is_refused_naming_them(
    base: BaseModel, train: LabelledSet, judged: LabelledSet, bench: Workbench
) -> None:
    fewer = train.subset(range(39))
    with pytest.raises(CacheError, match=r"nearest one there has rows: .*; num_rows: 40, not 39"):
        _ = Workbench(base, fewer, judged, bench.root).calibration


def test_the_order_of_the_calibration_rows_is_part_of_the_key(
    base: BaseModel, train: LabelledSet, judged: LabelledSet, tmp_path: Path
) -> None:
    reversed_ = train.subset(range(len(train) - 1, -1, -1))
    assert Workbench(base, reversed_, judged, tmp_path).key != Workbench(base, train, judged, tmp_path).key


def test_the_reference_is_the_dense_models_logits(bench: Workbench) -> None:
    expected = logits_of(dense_model(bench.base), bench.evaluation.sequences)
    torch.testing.assert_close(bench.reference(), expected, atol=1e-5, rtol=0)


def test_the_reference_is_computed_once(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = bench.reference()
    monkeypatch.setattr(pruning.workbench, "predict_logits", refuse)
    assert torch.equal(opened_again(bench).reference(), expected)


def test_other_evaluation_rows_have_a_reference_of_their_own(bench: Workbench) -> None:
    bench.reference()
    other = Workbench(bench.base, bench.train, bench.evaluation.subset(range(7)), bench.root)
    assert other.reference().shape == (7, 2)


@pytest.mark.parametrize("size", [0, 20])
def test_a_truncated_reference_is_refused_by_name(bench: Workbench, size: int) -> None:
    path = reference_file(bench)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CacheError, match=f"{path.parent.name}.* is damaged"):
        opened_again(bench).reference()


def test_a_flipped_bit_in_the_reference_is_refused_naming_the_checksum(bench: Workbench) -> None:
    path = reference_file(bench)
    flip_byte(path)
    with pytest.raises(CacheError, match=f"{path.name} is damaged: it does not match its checksum; delete"):
        opened_again(bench).reference()


def test_a_reference_that_lost_its_logits_is_refused_by_name(bench: Workbench) -> None:
    path = reference_file(bench)
    path.unlink()
    with pytest.raises(CacheError, match=f"{path.parent.name} is damaged"):
        opened_again(bench).reference()


def test_a_reference_that_lost_its_checksum_is_computed_anew(bench: Workbench) -> None:
    path = reference_file(bench)
    expected = bench.reference()
    (path.parent / "sha256.json").unlink()
    assert torch.equal(opened_again(bench).reference(), expected)
    assert (path.parent / "sha256.json").is_file()


def test_a_reference_that_cannot_be_written_is_reported_and_leaves_nothing_behind(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(tensors: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(pruning.workbench, "save_file", half)
        with pytest.raises(StoreError, match="No space left on device"):
            bench.reference()
    assert everything_under(bench.root / "references") == []
    assert bench.reference().shape == (30, 2)
