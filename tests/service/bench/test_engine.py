from collections.abc import Sequence

import pytest

from pruning.encoder import BaseModel, load_base_model
from pruning.random_model import random_sequences
from service.bench import engine
from service.bench.engine import STAGES, Batch, measure_engine
from service.bench.subjects import Subject
from tests.service.bench.bench_parts import subject_of


@pytest.fixture(scope="module")
def base(tiny_model_dir: object) -> BaseModel:
    return load_base_model(tiny_model_dir)  # type: ignore[arg-type]


def batches_of(base: BaseModel, count: int = 4) -> list[Batch]:
    sequences = random_sequences([3, 9], 8, base.shape.vocabulary)
    return [lambda: sequences] * count


def test_every_subject_answers_the_same_texts_and_sparse_ones_multiply_less(base: BaseModel) -> None:
    dense, sparse = measure_engine(
        [subject_of(base, 0.0), subject_of(base, 0.5)], batches_of(base), seconds=1.0, rounds=1
    )
    assert dense.texts == sparse.texts == 32
    assert sparse.macs < dense.macs
    assert set(dense.shares) == set(STAGES)
    assert sum(dense.shares.values()) == pytest.approx(1.0)
    assert all(share > 0 for share in dense.shares.values())


def test_only_the_tokens_of_the_texts_are_counted(base: BaseModel) -> None:
    subject = subject_of(base, 0.0)
    (reading,) = measure_engine([subject], batches_of(base, 2), seconds=1.0, rounds=1)
    assert reading.macs == subject.macs([3, 9] * 8)


def scripted(base: BaseModel, monkeypatch: pytest.MonkeyPatch, inference_s: Sequence[float]) -> Sequence[int]:
    """Let each pass take scripted seconds; return what will hold the number of batches of each."""
    seconds, used = iter(inference_s), []

    def passed(subject: Subject, batches: Sequence[Batch]) -> dict[str, float]:
        used.append(len(batches))
        return dict.fromkeys(STAGES, 0.0) | {"inference": next(seconds)}

    monkeypatch.setattr(engine, "_pass", passed)
    return used


def test_the_best_round_counts_the_median_stands_beside_it_and_the_first_one_counts_for_neither(
    base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(base, monkeypatch, [1.0, 1.0, 0.1, 2.0, 0.5, 4.0])
    (reading,) = measure_engine([subject_of(base, 0.0)], batches_of(base, 2), seconds=1.0, rounds=3)
    assert reading.texts_per_s == 16 / 0.5
    assert reading.median_texts_per_s == 16 / 2.0


@pytest.mark.parametrize(("seconds", "batches"), [(3.0, 6), (0.01, 2), (100.0, 20)])
def test_as_many_batches_are_used_as_fill_the_time(
    base: BaseModel, monkeypatch: pytest.MonkeyPatch, seconds: float, batches: int
) -> None:
    used = scripted(base, monkeypatch, [1.0] * 4)
    measure_engine([subject_of(base, 0.0)], batches_of(base, 20), seconds=seconds, rounds=1)
    assert list(used) == [2, 2, batches, batches]
