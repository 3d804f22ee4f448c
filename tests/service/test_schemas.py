from typing import Any

import pytest

from pruning.tokenization import Direction, Text
from service.classification import Activation
from service.errors import Invalid
from service.schemas import HubRequest, TeiRequest, parse

OPTIONS = ("use_cache", "wait_for_model", "dont_load_model", "retry_on_error", "use_gpu")


@pytest.mark.parametrize(
    ("inputs", "texts"), [("a", ["a"]), (["a"], ["a"]), (["a", "b"], ["a", "b"]), (["a", "b", "c"], ["a", "b", "c"])]
)
def test_a_list_on_the_hub_route_is_a_batch_and_always_answered_nested(inputs: Any, texts: list[Text]) -> None:
    query = parse(HubRequest, {"inputs": inputs, "parameters": {}}).query()
    assert (query.texts, query.nested) == (texts, True)


@pytest.mark.parametrize(
    ("inputs", "texts", "nested"),
    [
        ("a", ["a"], False),
        (["a"], ["a"], False),
        (["a", "b"], [("a", "b")], False),
        ([["a"], ["b"]], ["a", "b"], True),
        ([["a", "b"]], [("a", "b")], True),
        ([["a"], ["b", "c"]], ["a", ("b", "c")], True),
    ],
)
def test_a_flat_list_of_two_on_the_tei_route_is_a_pair(inputs: Any, texts: list[Text], nested: bool) -> None:
    query = parse(TeiRequest, {"inputs": inputs}).query()
    assert (query.texts, query.nested) == (texts, nested)


def test_defaults_truncate_on_the_right_and_show_every_label() -> None:
    for query in (parse(HubRequest, {"inputs": "a"}).query(), parse(TeiRequest, {"inputs": "a"}).query()):
        assert query.truncate
        assert query.direction is Direction.RIGHT
        assert (query.ranking.activation, query.ranking.top_k) == (None, None)


def test_hub_parameters_are_taken_over() -> None:
    parameters = {"top_k": 2, "function_to_apply": "sigmoid", "truncation": False, "truncation_direction": "left"}
    query = parse(HubRequest, {"inputs": "a", "parameters": parameters, "options": {"wait_for_model": True}}).query()
    assert (query.ranking.top_k, query.ranking.activation) == (2, Activation.SIGMOID)
    assert (query.truncate, query.direction) == (False, Direction.LEFT)


@pytest.mark.parametrize("value", [True, False])
def test_every_option_of_hugging_faces_clients_is_taken_and_changes_nothing(value: bool) -> None:
    with_options = parse(HubRequest, {"inputs": "a", "options": dict.fromkeys(OPTIONS, value)}).query()
    assert with_options == parse(HubRequest, {"inputs": "a"}).query()


@pytest.mark.parametrize(
    ("truncation", "cut"), [(True, True), (False, False), ("longest_first", True), ("do_not_truncate", False)]
)
def test_hub_truncation_may_be_a_strategy(truncation: Any, cut: bool) -> None:
    assert parse(HubRequest, {"inputs": "a", "parameters": {"truncation": truncation}}).query().truncate is cut


@pytest.mark.parametrize(("truncate", "cut"), [(None, True), (True, True), (False, False)])
def test_tei_truncate_may_be_null(truncate: Any, cut: bool) -> None:
    body = {"inputs": "a", "truncate": truncate, "truncation_direction": "left", "raw_scores": True}
    query = parse(TeiRequest, body).query()
    assert (query.truncate, query.direction) == (cut, Direction.LEFT)
    assert query.ranking.activation is Activation.NONE


@pytest.mark.parametrize(
    ("schema", "body", "words"),
    [
        (HubRequest, [], "must be a JSON object with 'inputs', not an empty list"),
        (HubRequest, None, "not null"),
        (HubRequest, "a", "not a string"),
        (HubRequest, {}, "inputs: Field required"),
        (HubRequest, {"inputs": []}, "inputs: must be a string or a list of at least one string, not an empty list"),
        (HubRequest, {"inputs": None}, "not null"),
        (HubRequest, {"inputs": {"text": "a"}}, "not an object"),
        (HubRequest, {"inputs": ["a", 3]}, "item 1 must be a string, not a number"),
        (HubRequest, {"inputs": ["a", ["b"]]}, "item 1 must be a string, not a list"),
        (HubRequest, {"input": "a"}, "input is not known here"),
        (HubRequest, {"inputs": "a", "parameters": {"temperature": 1}}, "parameters.temperature is not known here"),
        (HubRequest, {"inputs": "a", "parameters": {"top_k": 0}}, "parameters.top_k"),
        (HubRequest, {"inputs": "a", "parameters": {"top_k": "3"}}, "parameters.top_k"),
        (HubRequest, {"inputs": "a", "parameters": {"top_k": True}}, "parameters.top_k"),
        (HubRequest, {"inputs": "a", "parameters": {"top_k": float("nan")}}, "parameters.top_k"),
        (HubRequest, {"inputs": "a", "parameters": {"function_to_apply": "relu"}}, "'softmax', 'sigmoid' or 'none'"),
        (HubRequest, {"inputs": "a", "parameters": []}, "parameters"),
        (HubRequest, {"inputs": "a", "options": {"x": 1}}, "options.x is not known here"),
        (TeiRequest, {"inputs": []}, "inputs: must be a string, a pair"),
        (TeiRequest, {"inputs": 3}, "not a number"),
        (TeiRequest, {"inputs": ["a", "b", "c"]}, "one or two strings"),
        (TeiRequest, {"inputs": ["a", ["b"]]}, "one or two strings"),
        (TeiRequest, {"inputs": [["a"], "b"]}, "item 1 must be a list of one or two strings"),
        (TeiRequest, {"inputs": [["a"], []]}, "item 1"),
        (TeiRequest, {"inputs": [["a", "b", "c"]]}, "item 0"),
        (TeiRequest, {"inputs": "a", "truncation_direction": "up"}, "'right' or 'left'"),
        (TeiRequest, {"inputs": "a", "raw_scores": 1}, "raw_scores"),
        (TeiRequest, {"inputs": "a", "parameters": {"top_k": 1}}, "parameters.top_k is not known here"),
        (TeiRequest, {"inputs": "a", "parameters": {"sparsity": 1}}, "parameters.sparsity"),
        (HubRequest, {"inputs": "a", "parameters": {"quality": "best"}}, "parameters.quality"),
    ],
)
def test_what_is_wrong_is_named(schema: Any, body: Any, words: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse(schema, body)
    assert words in refused.value.detail


def test_refusals_stay_short_and_repeat_no_values() -> None:
    body = {"inputs": 3, "parameters": {f"{'x' * 500}{i}": "private text" for i in range(1000)}}
    with pytest.raises(Invalid) as refused:
        parse(HubRequest, body)
    assert len(refused.value.detail) < 800
    assert "and 996 more" in refused.value.detail
    assert "private" not in refused.value.detail
