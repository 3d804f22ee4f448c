import json
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pruning.cost import structured_cost
from pruning.encoder import BaseModel
from pruning.errors import ChecksumError, StoreError
from pruning.evaluation import Evaluation
from pruning.files import sha256_of
from pruning.metrics import Metric
from pruning.slim.convert import dense_mask, slim_layers
from pruning.spec import Pattern, PruneSpec
from pruning.timing import Speed
from pruning.variants import MANIFEST, WEIGHTS, Manifest, VariantStore
from tests.pruning.parts import everything_under, flip_byte, mask_of


def manifest_of(base: BaseModel, variant_id: str, sparsity: float = 0.5) -> Manifest:
    return Manifest(
        variant_id=variant_id,
        spec=PruneSpec(sparsity=sparsity),
        achieved_sparsity=sparsity,
        base_digest=base.digest,
        heads=[2, 2],
        neurons=[32, 32],
        cost=structured_cost(base.shape, [2, 2], [32, 32]),
        evaluation=Evaluation(
            metric=Metric(name="accuracy", value=0.9, low=0.8, high=0.95), agreement=0.97, rows=30, others={"f1": 0.8}
        ),
        speed=Speed(latency_p50_ms=1.5, items_per_s=600.0),
        build_seconds={"cut": 0.1},
    )


@pytest.fixture
def layers(base: BaseModel) -> dict[str, Tensor]:
    return slim_layers(base, mask_of(base.shape, [[0, 1]] * 2, [range(32)] * 2))


@pytest.fixture
def store(tmp_path: Path) -> VariantStore:
    return VariantStore(tmp_path / "root")


@pytest.fixture
def stored(store: VariantStore, base: BaseModel, layers: dict[str, Tensor]) -> Manifest:
    """A variant that the store holds."""
    return store.put(layers, manifest_of(base, "a" * 16))


def test_a_variant_comes_back_as_it_was_put(
    store: VariantStore, base: BaseModel, layers: dict[str, Tensor], stored: Manifest
) -> None:
    manifest, loaded = store.load(stored.variant_id)
    assert replace(manifest, weights_sha256="") == manifest_of(base, stored.variant_id)
    assert set(loaded) == set(layers)
    assert all(torch.equal(loaded[name], layers[name]) for name in layers)


def test_a_variant_with_empty_layers_comes_back_as_it_was_put(store: VariantStore, base: BaseModel) -> None:
    layers = slim_layers(base, mask_of(base.shape, [[], [1]], [range(16), []]))
    store.put(layers, manifest_of(base, "b" * 16))
    loaded = store.load("b" * 16)[1]
    assert {name: tensor.shape for name, tensor in loaded.items()} == {
        name: tensor.shape for name, tensor in layers.items()
    }


def test_a_speed_of_the_time_before_it_named_its_device_is_the_cpus(base: BaseModel) -> None:
    values = manifest_of(base, "a" * 16).as_dict()
    del values["speed"]["device"]
    assert Manifest.from_dict(values).speed.device == "cpu"


def test_the_newest_stay_and_what_is_in_use(store: VariantStore, base: BaseModel, layers: dict[str, Tensor]) -> None:
    ids = [name * 16 for name in "abcde"]
    for age, variant_id in enumerate(ids):
        store.put(layers, manifest_of(base, variant_id))
        os.utime(store.folder / variant_id / MANIFEST, (age, age))
    store.touch(ids[1])
    store.touch("f" * 16)
    assert store.keep_newest(2, {ids[0]}) == [ids[3], ids[2]]
    assert [path.name for path in sorted(store.folder.iterdir())] == [ids[0], ids[1], ids[4]]
    assert store.keep_newest(2, set()) == [ids[0]]


def test_a_variant_that_cannot_be_removed_stays_whole(
    store: VariantStore, stored: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> Path:
        raise PermissionError("not yours")

    with monkeypatch.context() as fixed:
        fixed.setattr(Path, "rename", refuse)
        assert store.keep_newest(0, set()) == []
    assert store.verify(stored.variant_id) == stored
    assert [path.name for path in store.folder.iterdir()] == [stored.variant_id]


def test_the_manifest_carries_the_checksum_of_the_weights(store: VariantStore, stored: Manifest) -> None:
    assert stored.weights_sha256 == sha256_of(store.folder / stored.variant_id / WEIGHTS)


def test_only_the_encoder_layers_are_written(store: VariantStore, stored: Manifest) -> None:
    assert all(name.startswith("layers.") for name in store.load(stored.variant_id)[1])


def test_only_what_was_put_is_there(store: VariantStore, stored: Manifest) -> None:
    assert stored.variant_id in store
    assert "c" * 16 not in store


def test_an_unknown_variant_is_refused_by_name(store: VariantStore) -> None:
    with pytest.raises(StoreError, match=r"no variant cccc in .*; build it with 'sparsedial prune'"):
        store.load("cccc")


def test_an_empty_store_lists_nothing(store: VariantStore) -> None:
    assert store.list() == []


def test_the_list_is_least_sparse_first(store: VariantStore, base: BaseModel, layers: dict[str, Tensor]) -> None:
    for letter, sparsity in (("a", 0.8), ("b", 0.0), ("c", 0.3)):
        store.put(layers, manifest_of(base, letter * 16, sparsity))
    assert [manifest.spec.sparsity for manifest in store.list()] == [0.0, 0.3, 0.8]


def test_the_pattern_survives_the_manifest(store: VariantStore, base: BaseModel, layers: dict[str, Tensor]) -> None:
    spec = PruneSpec(sparsity=0.5, pattern=Pattern.UNSTRUCTURED)
    assert store.put(layers, replace(manifest_of(base, "a" * 16), spec=spec)).spec == spec


@pytest.mark.parametrize("position", [0, 300, -1])
def test_a_flipped_bit_in_the_weights_is_refused_naming_both_checksums(
    store: VariantStore, stored: Manifest, position: int
) -> None:
    path = store.folder / stored.variant_id / WEIGHTS
    flip_byte(path, position)
    actual, expected = sha256_of(path)[:12], stored.weights_sha256[:12]
    with pytest.raises(ChecksumError, match=f"{WEIGHTS} has checksum {actual}, its manifest says {expected}"):
        store.load(stored.variant_id)


def test_a_changed_manifest_is_refused_naming_its_checksum(store: VariantStore, stored: Manifest) -> None:
    path = store.folder / stored.variant_id / MANIFEST
    claimed = json.loads(path.read_text())["manifest_sha256"]
    path.write_text(path.read_text().replace('"value": 0.9', '"value": 0.8'))
    with pytest.raises(ChecksumError, match=f"{MANIFEST} does not match its checksum {claimed[:12]}"):
        store.load(stored.variant_id)


def test_no_flipped_bit_of_the_manifest_goes_unnoticed(store: VariantStore, stored: Manifest) -> None:
    path = store.folder / stored.variant_id / MANIFEST
    content = path.read_bytes()
    meaning = json.loads(content)
    for position in range(0, len(content), 7):
        flip_byte(path, position)
        try:
            unchanged = json.loads(path.read_bytes()) == meaning
        except ValueError:
            unchanged = False
        if not unchanged:
            with pytest.raises(ChecksumError):
                store.manifest(stored.variant_id)
        path.write_bytes(content)


@pytest.mark.parametrize("content", ["", "{", "{}", "[1]", "3", '"text"', "null", '{"a": NaN, "manifest_sha256": ""}'])
def test_a_manifest_that_is_not_the_one_written_is_refused_with_the_remedy(
    store: VariantStore, stored: Manifest, content: str
) -> None:
    (store.folder / stored.variant_id / MANIFEST).write_text(content)
    with pytest.raises(ChecksumError, match=rf"{MANIFEST} is damaged .* delete the folder of variant aaaa"):
        store.manifest(stored.variant_id)


def test_a_checksum_that_is_a_number_is_one_that_does_not_match(store: VariantStore, stored: Manifest) -> None:
    (store.folder / stored.variant_id / MANIFEST).write_text('{"manifest_sha256": 3}')
    with pytest.raises(ChecksumError, match="does not match its checksum 3;"):
        store.manifest(stored.variant_id)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
@pytest.mark.parametrize("name", [WEIGHTS, MANIFEST])
def test_a_truncated_file_is_refused_by_name(store: VariantStore, stored: Manifest, name: str, share: float) -> None:
    path = store.folder / stored.variant_id / name
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ChecksumError, match=name):
        store.load(stored.variant_id)


def test_missing_weights_are_refused_by_name(store: VariantStore, stored: Manifest) -> None:
    (store.folder / stored.variant_id / WEIGHTS).unlink()
    with pytest.raises(StoreError, match=f"{WEIGHTS} cannot be read"):
        store.load(stored.variant_id)


def test_a_damaged_variant_is_logged_and_left_out_of_the_list(
    store: VariantStore, base: BaseModel, layers: dict[str, Tensor], stored: Manifest, caplog: pytest.LogCaptureFixture
) -> None:
    store.put(layers, manifest_of(base, "b" * 16))
    path = store.folder / stored.variant_id / MANIFEST
    path.write_text(path.read_text()[:-20])
    with caplog.at_level(logging.WARNING, "pruning.variants"):
        assert [manifest.variant_id for manifest in store.list()] == ["b" * 16]
    assert f"delete the folder of variant {stored.variant_id}" in caplog.text


def test_a_folder_that_is_still_being_written_is_not_listed(store: VariantStore, stored: Manifest) -> None:
    (store.folder / stored.variant_id).rename(store.folder / f".{stored.variant_id}.x7")
    assert store.list() == []


def test_putting_the_same_variant_twice_keeps_the_first(
    store: VariantStore, base: BaseModel, layers: dict[str, Tensor], stored: Manifest
) -> None:
    again = store.put(
        slim_layers(base, dense_mask(base.shape)), replace(manifest_of(base, stored.variant_id), build_seconds={})
    )
    assert again == stored
    assert store.load(stored.variant_id)[1]["layers.0.ffn_in.weight"].shape == (32, 32)


@pytest.mark.parametrize("lost", [[MANIFEST], [MANIFEST, WEIGHTS]], ids=["manifest", "everything"])
def test_a_variant_that_lost_its_manifest_is_put_anew(
    store: VariantStore, stored: Manifest, layers: dict[str, Tensor], lost: list[str]
) -> None:
    folder = store.folder / stored.variant_id
    for name in lost:
        (folder / name).unlink()
    assert stored.variant_id not in store
    assert store.put(layers, stored) == stored
    assert set(store.load(stored.variant_id)[1]) == set(layers)
    assert everything_under(store.folder) == [folder.name, f"{folder.name}/{MANIFEST}", f"{folder.name}/{WEIGHTS}"]


def test_of_writers_at_the_same_time_one_is_kept_and_all_read_it(
    store: VariantStore, base: BaseModel, layers: dict[str, Tensor]
) -> None:
    start, results = threading.Barrier(4), list[Manifest]()

    def write(index: int) -> None:
        manifest = replace(manifest_of(base, "a" * 16), build_seconds={"cut": float(index)})
        start.wait()
        results.append(store.put(layers, manifest))

    threads = [threading.Thread(target=write, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [store.manifest("a" * 16)] * 4
    assert everything_under(store.folder) == ["a" * 16, f"{'a' * 16}/{MANIFEST}", f"{'a' * 16}/{WEIGHTS}"]


def no_space(*_: Any, **__: Any) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    "place", ["pruning.variants.save_file", "pruning.variants.write_json", "os.fsync", "pathlib.Path.rename"]
)
def test_a_full_disk_is_reported_and_leaves_nothing_behind(
    store: VariantStore, base: BaseModel, layers: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    with monkeypatch.context() as full:
        full.setattr(place, no_space)
        with pytest.raises(StoreError, match=r"could not be written to .*No space left on device; free space"):
            store.put(layers, manifest_of(base, "a" * 16))
    assert everything_under(store.folder) == []
    assert "a" * 16 not in store


def test_a_root_that_is_a_file_is_reported(tmp_path: Path, base: BaseModel, layers: dict[str, Tensor]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="choose a writable --store"):
        VariantStore(tmp_path / "file").put(layers, manifest_of(base, "a" * 16))
    assert everything_under(tmp_path) == ["file"]


def read_manifest(store: VariantStore, variant_id: str) -> object:
    return store.manifest(variant_id)


def read_layers(store: VariantStore, variant_id: str) -> object:
    return store.load(variant_id)


@pytest.mark.parametrize("read", [read_manifest, read_layers])
@pytest.mark.parametrize("variant_id", ["../variants", "", "a/b", "\0"])
def test_an_id_that_is_no_id_finds_nothing(
    store: VariantStore, stored: Manifest, variant_id: str, read: Callable[[VariantStore, str], object]
) -> None:
    with pytest.raises(StoreError):
        read(store, variant_id)
