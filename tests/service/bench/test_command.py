import json
from pathlib import Path

import pytest

from pruning.random_model import SHAPES
from tests.conftest import write_rows
from tests.service.cli_parts import refused, run

pytestmark = pytest.mark.usefixtures("own_environment")


def test_bench_reads_the_engine_alone_without_a_service(tiny_model_dir: Path, tmp_path: Path) -> None:
    train, evaluation = (write_rows(tmp_path / f"{name}.jsonl", 40, seed=seed) for name, seed in (("t", 5), ("e", 6)))
    rows = ("--train", train, "--eval", evaluation, "--store", tmp_path / "bench")
    result = run("bench", tiny_model_dir, *rows, "--levels", "0.5", "--seconds", "0.1", "--no-http", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert [level["requested_sparsity"] for level in document["levels"]] == [0.0, 0.5]
    assert all(level["http"] == {} and level["engine"]["texts_per_s"] > 0 for level in document["levels"])
    assert document["levels"][0]["engine"]["shares"]["tokenization"] > 0


def test_bench_reads_a_shape_with_random_weights_and_tells_it_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHAPES, "tiny", (32, 2, 4, 64))
    given = ("--levels", "0.5", "--precision", "float32,bfloat16", "--lengths", "4,7", "--seconds", "0.1")
    result = run("bench", "--shape", "tiny", *given)
    assert result.exit_code == 0, result.output
    assert "tiny (random weights)" in result.stdout
    assert "0.5 bfloat16, engine alone: " in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--shape", "bert-huge"), ("unknown shape 'bert-huge'", "bert-base")),
        (("--shape", "bert-base", "--lengths", "513"), ("from 1 to 512", "513")),
        (("--shape", "bert-base", "--lengths", "long"), ("--lengths must be whole numbers", "'long'")),
        (("--precision", "float32,float8"), ("unknown precision 'float8'", "bfloat16")),
        (("--precision", ","), ("no precision is named", "bfloat16")),
        (("--plot", "bench.jpg"), ("bench.png, not bench.jpg",)),
    ],
)
def test_what_bench_cannot_measure_is_refused_with_a_remedy(arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    assert refused(run("bench", *arguments), 2, *words)


def test_bench_wants_texts_for_one_batch(store: Path, tiny_model_dir: Path, given: list[object]) -> None:
    result = run("bench", tiny_model_dir, *given, "--store", store, "--no-http")
    assert refused(result, 2, "has 30 texts; one batch takes 32")
