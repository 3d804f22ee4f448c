"""What tests share: for commands a store and an admin endpoint; a started controller; a started follower."""

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from typer.testing import Result

from pruning.encoder import BaseModel, load_base_model
from service.runtime import InferenceRuntime
from tests.service.cli_parts import run
from tests.service.control_parts import Control, make_control
from tests.service.fake_admin import FakeAdmin, serving
from tests.service.follower_parts import Parts, make_parts, started
from tests.service.inference_parts import client_of, engine_of, runtime_of


@pytest.fixture
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting and no cache of whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith("SPARSEDIAL_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def given(tiny_model_dir: Path, tiny_rows: tuple[Path, Path]) -> list[object]:
    """The options that name the tiny model's rows."""
    return ["--train", tiny_rows[0], "--eval", tiny_rows[1]]


@pytest.fixture(scope="session")
def first_run(
    tiny_model_dir: Path, given: list[object], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Result]:
    """A store, and what the command that prepared it answered."""
    store = tmp_path_factory.mktemp("prepared")
    return store, run("prepare", tiny_model_dir, *given, "--store", store, "--levels", "0.3,0.5", "--json")


@pytest.fixture
def store(first_run: tuple[Path, Result], tmp_path: Path) -> Path:
    """A prepared store of the test's own."""
    copy = tmp_path / "store"
    shutil.copytree(first_run[0], copy)
    return copy


@pytest.fixture
def admin() -> Iterator[FakeAdmin]:
    """An admin endpoint that answers what the test says."""
    with serving() as admin:
        yield admin


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[Control]:
    """A started controller, past its first lease."""
    control = make_control(tmp_path)
    await control.controller.start()
    control.clock.now += 4.0
    yield control
    await control.controller.stop()


@pytest.fixture
async def parts() -> AsyncIterator[Parts]:
    """A started follower."""
    async with started(make_parts()) as parts:
        yield parts


@pytest.fixture(scope="session")
def base(tiny_model_dir: Path) -> BaseModel:
    """The tiny model, read once."""
    return load_base_model(tiny_model_dir)


@pytest.fixture
def runtime(base: BaseModel, tiny_model_dir: Path) -> InferenceRuntime:
    """One that serves the tiny model cut by half."""
    return runtime_of(engine_of(base, "a" * 16, 0.5), tiny_model_dir)


@pytest.fixture
async def client(runtime: InferenceRuntime) -> AsyncIterator[httpx.AsyncClient]:
    """A client of that runtime's API."""
    async with client_of(runtime) as made:
        yield made
