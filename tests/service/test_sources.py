import shutil
import stat
from pathlib import Path

import huggingface_hub
import pytest

from pruning.encoder import load_base_model
from pruning.errors import DataError, ModelError, StoreError
from service.settings import Settings
from service.sources import (
    EMBEDDED,
    TOKEN_FILE,
    Sources,
    admin_token,
    default_store,
    model_dir,
    resolve,
    rows_of,
)
from tests.conftest import write_tiny_model


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names that were asked of the hub, which has nothing."""
    asked: list[str] = []

    def snapshot_download(name: str, **_: object) -> str:
        asked.append(name)
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


def test_the_embedded_model_and_its_rows_are_there() -> None:
    model = model_dir("embedded")
    train, evaluation = rows_of(model, None, None)
    assert (model / "config.json").is_file()
    assert train.is_file() and evaluation.is_file() and train != evaluation


def test_a_directory_is_taken_as_it_is(tiny_model_dir: Path, hub: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny_model_dir.parent)
    assert model_dir(str(tiny_model_dir)) == model_dir("./tiny") == model_dir("tiny") == tiny_model_dir
    assert hub == []


def test_a_path_is_never_looked_for_on_the_hub(hub: list[str], tmp_path: Path) -> None:
    for name in ("./nowhere", "../nowhere", "~/nowhere", str(tmp_path / "nowhere")):
        assert model_dir(name) == Path(name).expanduser().resolve()
    assert hub == []


def test_a_name_that_the_hub_does_not_have_is_refused(hub: list[str]) -> None:
    with pytest.raises(ModelError, match=r"'owner/name' is not a directory here, and the hub .*check the path"):
        model_dir("owner/name")
    assert hub == ["owner/name"]


@pytest.mark.parametrize("name", ["no such model!", "a/b/c", "über/bert", "http://hub/bert"])
def test_a_name_that_can_be_no_hub_id_is_refused_without_asking(name: str) -> None:
    with pytest.raises(ModelError, match="neither a directory here nor a hub id"):
        model_dir(name)


def test_a_hub_model_is_the_snapshot_without_pickles(monkeypatch: pytest.MonkeyPatch, tiny_model_dir: Path) -> None:
    patterns: list[str] = []

    def snapshot_download(name: str, *, allow_patterns: list[str]) -> str:
        patterns.extend(allow_patterns)
        return str(tiny_model_dir)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert model_dir("owner/name") == tiny_model_dir
    assert not any(pattern in ("*", "*.bin", "*.pt") for pattern in patterns)


def test_rows_are_both_given_or_both_the_embedded_ones(tiny_model_dir: Path, tiny_rows: tuple[Path, Path]) -> None:
    assert rows_of(tiny_model_dir, *tiny_rows) == tiny_rows
    for model in (tiny_model_dir, EMBEDDED / "model"):
        with pytest.raises(DataError, match="--train"):
            rows_of(model, tiny_rows[0], None)
        with pytest.raises(DataError, match="--eval"):
            rows_of(model, None, tiny_rows[1])
    with pytest.raises(DataError, match="tiny needs its own labelled rows"):
        rows_of(tiny_model_dir, None, None)


def test_one_file_may_not_score_and_judge(tiny_model_dir: Path, tiny_rows: tuple[Path, Path], tmp_path: Path) -> None:
    link = tmp_path / "link.jsonl"
    link.symlink_to(tiny_rows[0])
    for other in (tiny_rows[0], link):
        with pytest.raises(DataError, match="same file"):
            rows_of(tiny_model_dir, tiny_rows[0], other)


def test_the_default_store_differs_by_model_content_not_by_place(tmp_path: Path) -> None:
    first = write_tiny_model(tmp_path / "a" / "bert")
    copy = Path(shutil.copytree(first, tmp_path / "b" / "bert"))
    other = write_tiny_model(tmp_path / "c" / "bert", seed=1)
    stores = [default_store(load_base_model(folder)) for folder in (first, copy, other)]
    assert stores[0] == stores[1] != stores[2]
    assert stores[0].parent == tmp_path / "cache" / "sparsedial"
    assert stores[0].name.startswith("bert-")


def test_a_model_folder_called_model_is_named_after_its_parent(tmp_path: Path) -> None:
    model = load_base_model(write_tiny_model(tmp_path / "reviews" / "model"))
    assert default_store(model).name.startswith("reviews-")


def test_resolve_finds_all_four(tiny_model_dir: Path, tiny_rows: tuple[Path, Path], tmp_path: Path) -> None:
    train, evaluation = tiny_rows
    settings = Settings(model=str(tiny_model_dir), train=train, eval=evaluation, store=tmp_path)
    assert resolve(settings) == Sources(tiny_model_dir, train, evaluation, tmp_path)
    somewhere = Settings(model=str(tiny_model_dir), train=train, eval=evaluation)
    assert resolve(somewhere).store == default_store(load_base_model(tiny_model_dir))


def test_a_token_is_made_for_its_owner_alone_and_kept(tmp_path: Path) -> None:
    store = tmp_path / "new" / "store"
    token, path = admin_token(Settings(), store)
    assert path == store / TOKEN_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(token) >= 32
    assert admin_token(Settings(), store) == (token, path)
    assert admin_token(Settings(), tmp_path / "other")[0] != token


def test_a_token_that_is_set_is_not_written_down(tmp_path: Path) -> None:
    assert admin_token(Settings(admin_token="mine"), tmp_path) == ("mine", None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o620, 0o666])
def test_a_token_that_others_can_reach_is_refused(mode: int, tmp_path: Path) -> None:
    _, path = admin_token(Settings(), tmp_path)
    assert path is not None
    path.chmod(mode)
    with pytest.raises(StoreError, match=f"chmod 600 {path}"):
        admin_token(Settings(), tmp_path)


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe"])
def test_a_damaged_token_is_refused_with_the_remedy(content: bytes, tmp_path: Path) -> None:
    _, path = admin_token(Settings(), tmp_path)
    assert path is not None
    path.write_bytes(content)
    with pytest.raises(StoreError, match="delete it and start again"):
        admin_token(Settings(), tmp_path)


def test_a_store_that_can_keep_no_token_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="writable --store"):
        admin_token(Settings(), tmp_path / "file" / "store")
