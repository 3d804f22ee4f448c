import pytest

from pruning.tokenization import Encoded, Text
from service.errors import Invalid, ServiceError, TooLarge
from service.settings import Settings
from service.text_limits import check_lengths, check_texts

SETTINGS = Settings(max_client_batch_size=4, max_text_characters=10)


@pytest.mark.parametrize("texts", [["a"], ["a"] * 4, ["x" * 10], [("a", "b")], ["é😀"], [" "]])
def test_texts_within_the_limits_pass(texts: list[Text]) -> None:
    check_texts(texts, SETTINGS)


@pytest.mark.parametrize(
    ("texts", "kind", "words"),
    [
        (["a"] * 5, TooLarge, "5 texts; the limit is 4"),
        (["a", "x" * 11], TooLarge, "Text 1 has 11 characters; the limit is 10"),
        ([("a", "x" * 11)], TooLarge, "Text 0 has 11 characters"),
        (["a", ""], Invalid, "Text 1 is empty"),
        ([("a", "")], Invalid, "Text 0 is empty"),
        (["ab\ud800"], Invalid, "surrogate pair at character 2"),
    ],
)
def test_a_refusal_names_what_and_the_limit(texts: list[Text], kind: type[ServiceError], words: str) -> None:
    with pytest.raises(kind) as refused:
        check_texts(texts, SETTINGS)
    assert words in refused.value.detail


def test_a_sequence_beyond_the_positions_is_refused_with_its_tokens() -> None:
    short, long = Encoded([1] * 8, [0] * 8), Encoded([1] * 9, [0] * 9)
    check_lengths([short], 8)
    with pytest.raises(Invalid, match="Text 1 has 9 tokens; the model reads at most 8"):
        check_lengths([short, long], 8)
