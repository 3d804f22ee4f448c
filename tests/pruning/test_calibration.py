from dataclasses import asdict, fields, replace

import pytest

from pruning.calibration import CalibrationKey
from pruning.encoder import BaseModel
from tests.pruning.parts import random_calibration


def changed(key: CalibrationKey, field: str) -> CalibrationKey:
    value = getattr(key, field)
    return replace(key, **{field: value + (1 if isinstance(value, int) else "x")})


@pytest.mark.parametrize("field", [field.name for field in fields(CalibrationKey)])
def test_every_field_counts_in_the_digest(base: BaseModel, field: str) -> None:
    key = random_calibration(base).key
    assert changed(key, field).digest != key.digest


@pytest.mark.parametrize("field", [field.name for field in fields(CalibrationKey)])
def test_the_field_that_differs_is_named_with_both_values(base: BaseModel, field: str) -> None:
    key = random_calibration(base).key
    other = changed(key, field)
    assert key.differences(asdict(other)) == [f"{field}: {getattr(other, field)!r}, not {getattr(key, field)!r}"]


def test_equal_keys_do_not_differ(base: BaseModel) -> None:
    key = random_calibration(base).key
    assert key.differences(asdict(key)) == []
