import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pruning.cache import GRADIENTS, KEY, WEIGHT_GRADIENTS, CalibrationCache
from pruning.calibration import CalibrationKey
from pruning.capture import Captured, capture
from pruning.data import LabelledSet
from pruning.encoder import BaseModel
from pruning.errors import CacheError
from pruning.files import sha256_of
from tests.pruning.parts import everything_under, flip_byte, random_calibration


@pytest.fixture
def captured(base: BaseModel, train: LabelledSet) -> Captured:
    return capture(base, train, micro_batch=4, progress=lambda done, total: None)


@pytest.fixture
def key(base: BaseModel) -> CalibrationKey:
    return random_calibration(base).key


@pytest.fixture
def cache(tmp_path: Path, key: CalibrationKey, captured: Captured) -> CalibrationCache:
    """A cache that holds one calibration."""
    made = CalibrationCache(tmp_path / "root")
    made.put(key, captured)
    return made


def test_a_hit_equals_the_recomputation(
    cache: CalibrationCache, key: CalibrationKey, base: BaseModel, train: LabelledSet
) -> None:
    stored = cache.get(key)
    again = capture(base, train, micro_batch=4, progress=lambda done, total: None)
    assert torch.equal(stored.head_gradients_MLN, torch.stack(again.head_gradients_LN))
    assert torch.equal(stored.neuron_gradients_MLF, torch.stack(again.neuron_gradients_LF))
    assert set(stored.grams) == set(again.grams)
    assert all(torch.equal(stored.grams[place], gram) for place, gram in again.grams.items())
    means, squares = stored.weight_gradient_means(), stored.weight_gradient_squares()
    assert set(means) == set(squares) == set(base.prunable_weights())
    assert all(torch.equal(means[name], mean) for name, mean in again.weight_means.items())
    assert all(torch.equal(squares[name], square) for name, square in again.weight_squares.items())


def test_only_what_was_put_is_there(cache: CalibrationCache, key: CalibrationKey) -> None:
    assert key in cache
    assert replace(key, seed=key.seed + 1) not in cache


def test_an_empty_cache_says_what_to_run(tmp_path: Path, key: CalibrationKey) -> None:
    with pytest.raises(CacheError, match="run 'sparsedial prepare' first"):
        CalibrationCache(tmp_path).get(key)


def test_another_key_is_refused_naming_the_field_that_differs(cache: CalibrationCache, key: CalibrationKey) -> None:
    with pytest.raises(CacheError, match="micro_batch: 1, not 8"):
        cache.get(replace(key, micro_batch=8))


def test_of_several_keys_the_nearest_one_is_named(
    cache: CalibrationCache, key: CalibrationKey, captured: Captured
) -> None:
    cache.put(replace(key, seed=7, loss="other", rows="others"), captured)
    with pytest.raises(CacheError, match=r"nearest one there has seed: 0, not 9\)"):
        cache.get(replace(key, seed=9))


@pytest.mark.parametrize("position", [0, 100, -1])
def test_a_flipped_byte_is_refused_naming_the_checksum(
    cache: CalibrationCache, key: CalibrationKey, position: int
) -> None:
    path = cache.folder / key.digest / GRADIENTS
    checksum = sha256_of(path)
    flip_byte(path, position)
    with pytest.raises(CacheError, match=f"{GRADIENTS} does not match its checksum {checksum[:12]}"):
        cache.get(key)


def test_a_flipped_byte_of_the_weight_gradients_is_refused_when_they_are_read(
    cache: CalibrationCache, key: CalibrationKey
) -> None:
    flip_byte(cache.folder / key.digest / WEIGHT_GRADIENTS)
    calibration = cache.get(key)
    with pytest.raises(CacheError, match=f"{WEIGHT_GRADIENTS} does not match its checksum"):
        calibration.weight_gradient_means()


@pytest.mark.parametrize("size", [0, 5, 1000])
def test_a_truncated_file_is_refused(cache: CalibrationCache, key: CalibrationKey, size: int) -> None:
    path = cache.folder / key.digest / GRADIENTS
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CacheError, match=f"{GRADIENTS} does not match its checksum.*prepare again"):
        cache.get(key)


def test_a_missing_file_is_refused_by_name(cache: CalibrationCache, key: CalibrationKey) -> None:
    (cache.folder / key.digest / GRADIENTS).unlink()
    with pytest.raises(CacheError, match=f"{GRADIENTS} cannot be read"):
        cache.get(key)


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", '{"key": 3, "sha256": {}}'])
def test_a_damaged_key_file_is_refused_by_name(cache: CalibrationCache, key: CalibrationKey, content: str) -> None:
    (cache.folder / key.digest / KEY).write_text(content)
    with pytest.raises(CacheError, match=rf"{KEY} is damaged.*prepare again"):
        cache.get(key)


def test_a_key_file_of_another_key_is_refused_naming_the_field(cache: CalibrationCache, key: CalibrationKey) -> None:
    path = cache.folder / key.digest / KEY
    path.write_text(path.read_text().replace('"loss": "cross_entropy"', '"loss": "cross_entropz"'))
    with pytest.raises(CacheError, match=r"damaged .*loss: 'cross_entropz', not 'cross_entropy'"):
        cache.get(key)


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", '{"key": 3, "sha256": {}}'])
def test_a_damaged_neighbour_does_not_hide_what_is_missing(
    cache: CalibrationCache, key: CalibrationKey, content: str
) -> None:
    (cache.folder / key.digest / KEY).write_text(content)
    with pytest.raises(CacheError, match="run 'sparsedial prepare' first"):
        cache.get(replace(key, seed=9))


def test_a_value_that_is_not_finite_is_refused_by_name(cache: CalibrationCache, key: CalibrationKey) -> None:
    folder = cache.folder / key.digest
    tensors = load_file(folder / GRADIENTS)
    tensors["gram.1.ffn"][0, 0] = float("nan")
    save_file(tensors, folder / GRADIENTS)
    record = json.loads((folder / KEY).read_text())
    record["sha256"][GRADIENTS] = sha256_of(folder / GRADIENTS)
    (folder / KEY).write_text(json.dumps(record))
    with pytest.raises(CacheError, match=r"gram\.1\.ffn has values that are not finite"):
        cache.get(key)


def test_putting_the_same_key_twice_keeps_the_first(
    cache: CalibrationCache, key: CalibrationKey, captured: Captured
) -> None:
    before = cache.get(key).head_gradients_MLN
    captured.head_gradients_LN = [gradient + 1 for gradient in captured.head_gradients_LN]
    cache.put(key, captured)
    assert torch.equal(cache.get(key).head_gradients_MLN, before)


def test_a_calibration_that_lost_its_key_file_is_put_anew(
    cache: CalibrationCache, key: CalibrationKey, captured: Captured
) -> None:
    before = cache.get(key).head_gradients_MLN
    (cache.folder / key.digest / KEY).unlink()
    assert key not in cache
    cache.put(key, captured)
    assert torch.equal(cache.get(key).head_gradients_MLN, before)


def no_space(*_: Any, **__: Any) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("place", ["pruning.cache.save_file", "pruning.cache.write_json", "pathlib.Path.rename"])
def test_a_full_disk_is_reported_and_leaves_nothing_behind(
    tmp_path: Path, key: CalibrationKey, captured: Captured, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    cache = CalibrationCache(tmp_path)
    with monkeypatch.context() as full:
        full.setattr(place, no_space)
        with pytest.raises(CacheError, match=r"could not be written to .*No space left on device"):
            cache.put(key, captured)
    assert everything_under(cache.folder) == []
    assert key not in cache


def test_a_root_that_is_a_file_is_reported(tmp_path: Path, key: CalibrationKey, captured: Captured) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="choose another --store"):
        CalibrationCache(tmp_path / "file").put(key, captured)


def test_everything_comes_back_in_float32(cache: CalibrationCache, key: CalibrationKey) -> None:
    calibration = cache.get(key)
    gradients = (calibration.head_gradients_MLN, calibration.neuron_gradients_MLF)
    tensors = [*gradients, *calibration.grams.values(), *calibration.load_weight_gradients().values()]
    assert {tensor.dtype for tensor in tensors} == {torch.float32}
