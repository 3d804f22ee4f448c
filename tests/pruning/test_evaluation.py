import pytest
import torch

from pruning.data import LabelledSet
from pruning.errors import SpecError
from pruning.evaluation import Evaluation, evaluate
from pruning.metrics import Metric, wilson_interval
from tests.pruning.parts import sequences_of


def rows_with(labels: list[int]) -> LabelledSet:
    return LabelledSet(tuple(sequences_of([3] * len(labels), vocabulary=30)), torch.tensor(labels), "digest")


def logits_for(predicted: list[int]) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(predicted), 2).float()


@pytest.mark.parametrize("total", [1, 31, 33, 69])
def test_accuracy_is_correct_over_total(total: int) -> None:
    predicted = logits_for([1] * total)
    evaluation = evaluate(predicted, predicted, rows_with([1] * (total - 1) + [0]))
    assert evaluation.accuracy == (total - 1) / total
    assert evaluation.rows == total


def test_agreement_is_with_the_dense_model_and_not_with_the_labels() -> None:
    evaluation = evaluate(logits_for([0, 0, 1, 1]), logits_for([0, 1, 1, 1]), rows_with([1, 1, 0, 0]))
    assert (evaluation.accuracy, evaluation.agreement) == (0.0, 0.75)


def test_the_interval_of_the_accuracy_is_wilsons() -> None:
    evaluation = evaluate(logits_for([0] * 10), logits_for([0] * 10), rows_with([0] * 7 + [1] * 3))
    assert (evaluation.accuracy_low, evaluation.accuracy_high) == wilson_interval(7, 10)


@pytest.mark.parametrize("field", ["accuracy", "accuracy_low", "accuracy_high"])
def test_who_asks_for_the_accuracy_of_another_task_is_told_its_metric(field: str) -> None:
    metric = Metric(name="pearson", value=0.8, low=0.7, high=0.9)
    with pytest.raises(SpecError, match="judged by pearson, and has no accuracy"):
        getattr(Evaluation(metric=metric, agreement=0.9, rows=30), field)


def test_two_labels_have_the_f1_of_the_second_and_the_matthews_correlation() -> None:
    evaluation = evaluate(logits_for([1, 1, 0, 0]), logits_for([1] * 4), rows_with([1, 0, 1, 0]))
    assert evaluation.others == {"f1": 0.5, "matthews": 0.0}
