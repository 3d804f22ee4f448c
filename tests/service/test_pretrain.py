"""``sparsedial pretrain``, from the command line to a folder that ``import`` could take."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import pruning.pretraining.sparse_encoder
from pruning.encoder import load_encoder
from pruning.imported import own_zeros
from service.cli import app


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.jsonl"
    rows = (f"the film was {word} and the food was {other}" for word in ("good", "dull") for other in ("warm", "cold"))
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in [*rows] * 10), encoding="utf-8")
    return path


def run(*arguments: object) -> Result:
    usual = ("--length", "16")  # the tiny model reads fewer tokens than a piece usually has
    return CliRunner().invoke(app, ["pretrain", *usual, *map(str, arguments)], catch_exceptions=False)


def test_a_sparse_encoder_is_made(tiny_model_dir: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "sparse"
    options = ("--text", text, "--out", out, "--sparsity", 0.5, "--steps", 2, "--batch-rows", 4, "--json")
    result = run(tiny_model_dir, *options)
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert (answer["out"], answer["training"]["step"], answer["spec"]["sparsity"]) == (str(out), 2, 0.5)
    assert set(answer["zeros"].values()) == {0.5}
    assert own_zeros(load_encoder(out)).by_tensor == answer["zeros"]
    again = run(tiny_model_dir, *options)
    assert (again.exit_code, again.stdout) == (2, "") and "is there already" in again.stderr


def test_without_json_it_says_how_it_went(tiny_model_dir: Path, text: Path, tmp_path: Path) -> None:
    result = run(tiny_model_dir, "--text", text, "--out", tmp_path / "sparse", "--steps", 1, "--batch-rows", 4)
    assert (result.exit_code, result.stdout) == (0, ""), result.output
    assert "of the dense hidden states are met" in result.stderr


def test_an_interruption_says_how_to_go_on(
    tiny_model_dir: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pruning.pretraining.sparse_encoder, "train", stop)
    result = run(tiny_model_dir, "--text", text, "--out", tmp_path / "sparse", "--steps", 1)
    assert (result.exit_code, result.stdout) == (1, "") and "--resume goes on" in result.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--gradual", 0), "gradual must be a share in (0, 1]; got 0"),
        (("--sparsity", 0), "sparsity 0 leaves the encoder as it is"),
        (("--scope", "tensor"), "unknown scope 'tensor'"),
        (("--steps", 0), "steps must be"),
        (("--length", 4), "length must be a whole number of at least 8; got 4"),
        (("--length", 65), "pieces of 65 tokens are longer than the"),
    ],
)
def test_what_cannot_be_is_refused(
    tiny_model_dir: Path, text: Path, tmp_path: Path, options: tuple[object, ...], words: str
) -> None:
    result = run(tiny_model_dir, "--text", text, "--out", tmp_path / "sparse", *options)
    assert (result.exit_code, result.stdout) == (2, "") and words in result.stderr
