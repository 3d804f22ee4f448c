import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning.checked_json import Altered, checked, read_checked_json, with_checksum
from pruning.errors import CacheError, StoreError
from pruning.files import digest_of, write_json

VALUE = {"head": 3, "costs": [0.5, 1.5], "name": "fisher"}
REMEDY = "delete it and go on"

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_json(tmp_path / "costs.json", with_checksum("costs", VALUE))
    return tmp_path / "costs.json"


@given(value=st.dictionaries(st.text(), plain) | st.lists(plain))
def test_a_value_that_went_through_json_is_the_one_written(value: dict[str, object] | list[object]) -> None:
    assert checked(json.loads(json.dumps(with_checksum("it", value))), "it", type(value)) == value


@given(value=st.lists(plain), other=st.lists(plain))
def test_another_value_under_the_same_checksum_is_refused(value: list[object], other: list[object]) -> None:
    document = with_checksum("it", value) | {"it": other}
    if digest_of(value) != digest_of(other):
        with pytest.raises(Altered, match=digest_of(value)[:12]):
            checked(document, "it", list)


def test_a_document_is_its_value_by_name_and_the_checksum(path: Path) -> None:
    assert json.loads(path.read_text()) == {"costs": VALUE, "sha256": digest_of(VALUE)}
    assert read_checked_json(path, "costs", dict, StoreError, REMEDY) == VALUE


def test_an_altered_value_is_refused_by_file_and_checksum_with_the_remedy(path: Path) -> None:
    path.write_text(path.read_text().replace("fisher", "wanda"))
    words = f"costs.json does not match its checksum {digest_of(VALUE)[:12]}; {REMEDY}"
    with pytest.raises(CacheError, match=words):
        read_checked_json(path, "costs", dict, CacheError, REMEDY)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"7", b"\xff", b"{}"),
        *(b'{"costs": {}}', b'{"sha256": ""}', b'{"costs": 3, "sha256": ""}', b'{"costs": {"a": NaN}, "sha256": ""}'),
    ],
)
def test_a_document_of_another_form_is_refused_by_file_with_the_remedy(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StoreError, match=rf"costs\.json is damaged \(.*\); {REMEDY}"):
        read_checked_json(path, "costs", dict, StoreError, REMEDY)


def test_a_document_that_cannot_be_read_is_refused_by_file_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=rf"is damaged \(.*Is a directory.*\); {REMEDY}"):
        read_checked_json(tmp_path, "costs", dict, StoreError, REMEDY)
