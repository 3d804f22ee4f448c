"""One sparse encoder: exactly as sparse as asked for, a folder like any other, the same whether interrupted or not."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from pruning.encoder import load_encoder
from pruning.errors import SpecError, StoreError
from pruning.imported import own_zeros
from pruning.pretraining.model_folder import RECORD
from pruning.pretraining.sparse_encoder import UNFINISHED, SparseEncoder, pretrain, pretraining_recipe
from pruning.recovery.recipe import Recipe
from pruning.recovery.training import Progress
from pruning.spec import Pattern, Scope
from tests.pruning.parts import everything_under
from tests.pruning.zoo import write_model

WISH = SparseEncoder.of(0.75, length=12)
SHORT = pretraining_recipe(steps=6, batch_rows=4, cut_every=2, check_every=2, held_out_rows=4)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.jsonl"
    words = ["the", "film", "was", "good", "and", "food", "dull", "we", "liked", "it"]
    generator = torch.Generator().manual_seed(0)
    rows = [" ".join(words[int(i)] for i in torch.randint(0, 10, (15,), generator=generator)) for _ in range(40)]
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows), encoding="utf-8")
    return path


def stop_after(step: int) -> Any:
    def report(progress: Progress) -> None:
        if progress.step == step:
            raise KeyboardInterrupt

    return report


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(one: Path, other: Path) -> bool:
    mine, theirs = weights_of(one), weights_of(other)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize("scope", [Scope.LAYERWISE, Scope.GLOBAL])
def test_the_sparsity_is_exact_in_its_scope(tiny_model_dir: Path, text: Path, tmp_path: Path, scope: Scope) -> None:
    pretrain(tiny_model_dir, text, SparseEncoder.of(0.75, scope, length=12), SHORT, tmp_path / "sparse")
    found = own_zeros(load_encoder(tmp_path / "sparse"))
    shares = list(found.by_tensor.values())
    assert found.pattern is Pattern.UNSTRUCTURED
    if scope is Scope.LAYERWISE:
        assert set(shares) == {0.75}
    else:
        sizes = [weight.numel() for weight in load_encoder(tiny_model_dir).prunable_weights().values()]
        zeros = sum(round(share * size) for share, size in zip(shares, sizes, strict=True))
        assert zeros == 0.75 * sum(sizes) and len(set(shares)) > 1


def test_the_folder_is_the_one_it_came_from_but_for_the_encoder(
    tiny_model_dir: Path, text: Path, tmp_path: Path
) -> None:
    went = pretrain(tiny_model_dir, text, WISH, SHORT, tmp_path / "sparse")
    before, after = weights_of(tiny_model_dir), weights_of(tmp_path / "sparse")
    assert before.keys() == after.keys()
    for name in before:
        assert torch.equal(before[name], after[name]) is (".encoder." not in name), name
    for name in ("config.json", "tokenizer.json"):
        assert (tmp_path / "sparse" / name).read_bytes() == (tiny_model_dir / name).read_bytes()
    record = json.loads((tmp_path / "sparse" / RECORD).read_text(encoding="utf-8"))
    assert record["training"] == went["training"] and record["training"]["step"] == 6
    assert not (tmp_path / f"sparse{UNFINISHED}").exists()
    assert everything_under(tmp_path / "sparse").count("model.safetensors") == 1


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "electra"])
def test_an_encoder_without_a_head_comes_back_without_one(kind: str, text: Path, tmp_path: Path) -> None:
    AutoModel.from_pretrained(write_model(tmp_path / "whole", kind)).save_pretrained(tmp_path / "bare")
    (tmp_path / "bare" / "tokenizer.json").write_bytes((tmp_path / "whole" / "tokenizer.json").read_bytes())
    pretrain(tmp_path / "bare", text, WISH, SHORT, tmp_path / "sparse")
    assert weights_of(tmp_path / "sparse").keys() == weights_of(tmp_path / "bare").keys()
    assert set(own_zeros(load_encoder(tmp_path / "sparse")).by_tensor.values()) == {0.75}
    AutoModel.from_pretrained(tmp_path / "sparse")


@pytest.mark.parametrize("step", [1, 3, 5])
def test_an_interrupted_run_that_is_resumed_equals_one_that_was_not(
    tiny_model_dir: Path, text: Path, tmp_path: Path, step: int
) -> None:
    pretrain(tiny_model_dir, text, WISH, SHORT, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        pretrain(tiny_model_dir, text, WISH, SHORT, tmp_path / "killed", report=stop_after(step))
    assert not (tmp_path / "killed").exists()
    pretrain(tiny_model_dir, text, WISH, SHORT, tmp_path / "killed", resume=True)
    assert same(tmp_path / "whole", tmp_path / "killed")


def test_the_encoder_learns_the_dense_hidden_states(tiny_model_dir: Path, text: Path, tmp_path: Path) -> None:
    scores: list[float] = []
    recipe = pretraining_recipe(steps=60, batch_rows=8, cut_every=2, check_every=30, held_out_rows=4, gradual=0.1)
    pretrain(
        tiny_model_dir, text, WISH, recipe, tmp_path / "sparse", report=lambda progress: scores.append(progress.score)
    )
    assert scores[30] < scores[-1] < 1.0


def test_nothing_is_overwritten(tiny_model_dir: Path, text: Path, tmp_path: Path) -> None:
    (tmp_path / "sparse").mkdir()
    (tmp_path / "sparse" / "mine").touch()
    with pytest.raises(SpecError, match="is there already"):
        pretrain(tiny_model_dir, text, WISH, SHORT, tmp_path / "sparse")


def test_a_writer_that_dies_leaves_no_model_and_its_checkpoint(
    tiny_model_dir: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pruning.pretraining.model_folder.save_file", die)
        with pytest.raises(StoreError, match="go on with --resume"):
            pretrain(tiny_model_dir, text, WISH, SHORT, tmp_path / "sparse")
    assert not (tmp_path / "sparse").exists()
    steps: list[int] = []
    pretrain(
        tiny_model_dir, text, WISH, SHORT, tmp_path / "sparse", resume=True,
        report=lambda progress: steps.append(progress.step),
    )  # fmt: skip
    assert (tmp_path / "sparse").is_dir() and not steps


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"sparsity": 0.0}, "sparsity 0"),
        ({"sparsity": 1.0}, "got 1.0"),
        ({"sparsity": 0.5, "scope": "tensor"}, "unknown scope 'tensor'"),
        ({"sparsity": 0.5, "length": 7}, "length must be a whole number of at least 8; got 7"),
        ({"sparsity": 0.5, "pieces": 0}, "pieces must be a whole number of at least 1; got 0"),
    ],
)
def test_what_cannot_be_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        SparseEncoder.of(**values)


def test_a_recipe_that_cuts_at_once_is_refused(tiny_model_dir: Path, text: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="gradual=0"):
        pretrain(tiny_model_dir, text, WISH, Recipe(steps=6), tmp_path / "sparse")


def test_pieces_longer_than_the_model_reads_are_refused(tiny_model_dir: Path, text: Path, tmp_path: Path) -> None:
    longest = load_encoder(tiny_model_dir).max_length
    words = f"pieces of {longest + 1} tokens are longer than the {longest} that this model reads; give a length of"
    with pytest.raises(SpecError, match=words):
        pretrain(tiny_model_dir, text, SparseEncoder.of(0.75, length=longest + 1), SHORT, tmp_path / "sparse")
    pretrain(tiny_model_dir, text, SparseEncoder.of(0.75, length=longest), SHORT, tmp_path / "sparse")
