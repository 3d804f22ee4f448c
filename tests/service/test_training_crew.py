"""``sparsedial recover --workers N``, as far as no worker is needed; the rest is in ``tests/integration``."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner, Result

import service.training_crew
from pruning.errors import DataError, PruningError, RecoveryError, SpecError
from pruning.recovery.recipe import Recipe
from pruning.spec import PruneSpec
from service.assignment import Assignment
from service.cli import app
from service.fast_path import RAY, free_ports, set_training_environment
from service.progress_board import ProgressBoard
from service.settings import Device
from service.sources import Sources
from service.training_crew import Hiring, refusal_of, taken_by_each

TWO = Hiring(workers=2, device=Device.AUTO, address=None)


@pytest.mark.parametrize(
    ("device", "address", "there", "taken"),
    [
        (Device.AUTO, None, {"CPU": 8}, {"CPU": 4}),
        (Device.AUTO, None, {"CPU": 8, "GPU": 2}, {"CPU": 4, "GPU": 1}),
        (Device.CPU, None, {"CPU": 8, "GPU": 2}, {"CPU": 4}),
        (Device.AUTO, "auto", {"CPU": 3}, {"CPU": 1}),
        (Device.CUDA, "auto", {"CPU": 64, "GPU": 8}, {"CPU": 1, "GPU": 1}),
    ],
)
def test_every_worker_takes_a_gpu_or_its_share_of_the_cores(
    device: Device, address: str | None, there: dict[str, float], taken: dict[str, float]
) -> None:
    assert taken_by_each(Hiring(workers=2, device=device, address=address), there, 4) == taken


@pytest.mark.parametrize(
    ("device", "there", "words"),
    [
        (
            Device.AUTO,
            {"CPU": 8, "GPU": 1},
            "--workers 2 need 2 GPUs, and 1 are free; lower --workers, or use",
        ),
        (Device.CUDA, {"CPU": 8}, "--workers 2 need 2 GPUs, and 0 are free"),
        (Device.CPU, {"CPU": 1, "GPU": 8}, "--workers 2 need 2 CPUs, and 1 are free; lower --workers, or add nodes"),
    ],
)
def test_what_ray_would_wait_for_is_refused(device: Device, there: dict[str, float], words: str) -> None:
    with pytest.raises(PruningError, match=words):
        taken_by_each(Hiring(workers=2, device=device, address="auto"), there, 4)


def test_what_a_worker_refuses_is_what_the_command_says() -> None:
    told = DataError("no file of labelled rows")
    gone = RuntimeError("Connection closed by peer")
    assert refusal_of(SimpleNamespace(worker_failures={0: gone, 1: told})) is told


def test_a_worker_that_is_gone_is_named_with_what_helps() -> None:
    refusal = refusal_of(SimpleNamespace(worker_failures={1: OSError("the process ended\nand more")}))
    assert isinstance(refusal, RecoveryError)
    assert str(refusal) == (
        "worker 1 ended before its time (the process ended); the same command with --resume goes on"
    )
    unhealthy = SimpleNamespace(health_check_failure=OSError("killed for want of memory"))
    assert "(killed for want of memory)" in str(refusal_of(SimpleNamespace(worker_failures={0: unhealthy})))
    assert "the training ended before its time (lost)" in str(refusal_of(RuntimeError("lost")))


def test_more_workers_than_rows_of_a_batch_are_refused() -> None:
    with pytest.raises(SpecError, match="--workers 2 cannot share batches of 1 rows; raise --batch-rows"):
        TWO.check(Recipe(steps=1, batch_rows=1))


def test_without_the_extra_several_workers_are_refused_and_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service.training_crew, "find_spec", lambda name: None)
    with pytest.raises(SpecError, match=r"not installed; run: pip install 'sparsedial\[train\]'"):
        TWO.check(Recipe(steps=1))
    Hiring(workers=1, device=Device.AUTO, address=None).check(Recipe(steps=1))


def run(model: Path, rows: tuple[Path, Path], store: Path, *arguments: object) -> Result:
    given = [model, "--train", rows[0], "--eval", rows[1], "--store", store, "--steps", 2, *arguments]
    return CliRunner().invoke(app, ["recover", *map(str, given)], catch_exceptions=False)


def test_a_cluster_that_is_not_there_is_refused(
    tiny_model_dir: Path, tiny_rows: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pandas", reason="the extra train is not installed")
    monkeypatch.setattr(service.training_crew, "set_training_environment", lambda own_cluster: None)
    address = f"127.0.0.1:{free_ports(1)[0]}"
    result = run(tiny_model_dir, tiny_rows, tmp_path / "store", "--workers", 2, "--address", address)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"no Ray cluster can be joined at --address {address}" in result.stderr


def test_no_worker_at_all_is_refused(tiny_model_dir: Path, tiny_rows: tuple[Path, Path], tmp_path: Path) -> None:
    result = run(tiny_model_dir, tiny_rows, tmp_path / "store", "--workers", 0)
    assert result.exit_code == 2 and "--workers must be at least 1; got 0" in result.stderr


def test_a_node_with_other_files_is_told(tiny_model_dir: Path, tiny_rows: tuple[Path, Path], tmp_path: Path) -> None:
    pytest.importorskip("pandas", reason="the extra train is not installed")
    from service.training_worker import work

    assignment = Assignment(
        sources=Sources(tiny_model_dir, *tiny_rows, tmp_path), rows=tiny_rows[0], spec=PruneSpec(sparsity=0.5),
        recipe=Recipe(steps=1), cut_name="another", recipe_id="another",
    )  # fmt: skip
    with pytest.raises(RecoveryError, match="others than the command's; every node needs the same files"):
        work({"assignment": assignment, "board": None})


def test_a_training_on_loopback_asks_for_a_token_and_sends_nothing_home() -> None:
    own: dict[str, str] = {}
    set_training_environment(own_cluster=True, environment=own)
    assert own.items() >= RAY.items() and own["RAY_USAGE_STATS_ENABLED"] == "0"
    assert own["RAY_AUTH_MODE"] == "token" and own["GLOO_SOCKET_IFNAME"] == "lo"
    joined = {"RAY_worker_niceness": "7"}
    set_training_environment(own_cluster=False, environment=joined)
    assert joined == RAY | {"RAY_worker_niceness": "7"}


def test_what_is_posted_is_taken_once_in_order() -> None:
    board = ProgressBoard()
    board.post({"step": 1})
    board.post({"step": 2})
    assert board.take() == [{"step": 1}, {"step": 2}]
    assert board.take() == []
