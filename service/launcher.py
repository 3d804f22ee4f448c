"""``sparsedial serve``: prepare, start Ray and the two applications, say where to look, drain on SIGTERM."""

import asyncio
import json
import logging
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

from pruning.errors import PruningError
from pruning.frontier import frontier_rows, measure_side_by_side
from pruning.workbench import Workbench
from service.fast_path import set_environment, socket_folder
from service.ladder import ladder_specs, prepare_ladder
from service.locks import sole_service
from service.preflight import check_store
from service.running import leave_note, remove_note
from service.settings import Device, Settings
from service.sources import Sources, admin_token, resolve
from service.state import STATE, StateFile
from service.terminal import frontier_table, print_json, print_table, progress_bar, spinner, stderr

OBJECT_STORE_BYTES = 200_000_000
"""Ray's shared memory: nothing large travels between our processes."""


def launch(settings: Settings, *, as_json: bool) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code.

    Raises:
        PruningError: the model, rows or store cannot be used, or the port is taken.
    """
    _check_port(settings.host, settings.port)
    sources = resolve(settings)
    with sole_service(sources.store), socket_folder() as folder:
        token, token_file = admin_token(settings, sources.store)
        ladder_ids, initial = _prepare(settings, sources)
        set_environment(settings.ingress, folder, own_cluster=settings.address is None)
        service = _Service(settings, sources, ladder_ids, initial)
        try:
            with spinner("starting Ray and the replicas"):
                service.connect()
                stop = _stop_signal()
                service.deploy()
            url = _url(settings)
            leave_note(settings.port, url, token_file)
            _say_hello(url, token, token_file, sources.store, as_json)
            stop.wait()
            stderr.print("stopping: requests in flight are finished first")
        finally:
            remove_note(settings.port)
            service.stop(settings.drain_timeout_s)
    return 0


def _prepare(settings: Settings, sources: Sources) -> tuple[tuple[str, ...], str]:
    """Return (ladder's variant ids, dense first; the initial one), with a table of what they cost and buy."""
    bench = Workbench.open(sources.model, sources.train, sources.evaluation, sources.store)
    specs = ladder_specs((*settings.levels, settings.sparsity), settings.scorer, settings.pattern)
    with progress_bar("scoring the model (once)") as update:
        calibrated = bench.calibrate(update)
    before = {manifest.variant_id for manifest in bench.store.list()}
    manifests = prepare_ladder(bench, specs)
    if calibrated or not before >= {manifest.variant_id for manifest in manifests}:
        with progress_bar("timing the levels side by side") as update:
            measure_side_by_side(bench, manifests, update)
    ids = tuple(manifest.variant_id for manifest in manifests)
    check_store(bench, ids, StateFile(sources.store / STATE))
    rows = [row for row in frontier_rows(bench.store, bench.base.digest) if row["variant"] in ids]
    print_table(frontier_table(rows), stderr)
    return ids, next(m.variant_id for m in manifests if m.spec.sparsity == settings.sparsity)


class _Service:
    """The Ray side of a running service. Ray is imported only after the environment is set."""

    def __init__(self, settings: Settings, sources: Sources, ladder_ids: tuple[str, ...], initial: str) -> None:
        self._settings = settings
        self._sources = sources
        self._ladder_ids = ladder_ids
        self._initial = initial

    def connect(self) -> None:
        """Bring up a cluster, or join one, with Serve on it."""
        import ray
        from ray import serve

        settings = self._settings
        for name in ("ray", "ray.serve"):
            logging.getLogger(name).setLevel(logging.ERROR)
        if settings.address is None:
            ray.init(
                address="local",
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=OBJECT_STORE_BYTES,
            )
        else:
            ray.init(address=settings.address, log_to_driver=False, logging_level=logging.ERROR)
        serve.start(
            http_options={
                "host": settings.host,
                "port": settings.port,
                "request_timeout_s": settings.request_timeout_s + 10,
            }
        )

    def deploy(self) -> None:
        """Start control, then model; return when both serve."""
        import ray
        from ray import serve

        from service.app import control_application, model_application
        from service.cluster import CONTROL_APP, MODEL_APP
        from service.control import Ladder

        settings = self._settings
        gpus = ray.cluster_resources().get("GPU", 0)
        wants_gpu = settings.device is Device.CUDA or (settings.device is Device.AUTO and gpus >= 1)
        ladder = Ladder(self._ladder_ids, self._initial)
        serve.run_many(  # together, for a replica waits for the controller by itself
            [
                serve.RunTarget(
                    control_application(settings, self._sources, ladder), name=CONTROL_APP, route_prefix="/admin"
                ),
                serve.RunTarget(
                    model_application(settings, self._sources, num_gpus=1 if wants_gpu else 0),
                    name=MODEL_APP,
                    route_prefix="/",
                ),
            ]
        )

    def stop(self, drain_s: float) -> None:
        """Let requests in flight be answered, for at most ``drain_s``; then end our applications and our cluster."""
        import ray

        if not ray.is_initialized():
            return
        asyncio.run(_drain_then_end(drain_s, own_cluster=self._settings.address is None))
        ray.shutdown()


async def _drain_then_end(drain_s: float, *, own_cluster: bool) -> None:
    """Drain and end in one event loop: a handle belongs to the loop that made it."""
    from ray import serve

    from service.cluster import CONTROL_APP, MODEL_APP

    if CONTROL_APP in serve.status().applications:
        await _drain(serve.get_app_handle(CONTROL_APP), drain_s)
    if own_cluster:
        await serve.shutdown_async()
    else:
        for name in (MODEL_APP, CONTROL_APP):
            await asyncio.to_thread(serve.delete, name)


async def _drain(control: Any, timeout_s: float) -> None:
    """Return once no replica has a request in flight, or after ``timeout_s``."""
    await control.drain.remote()
    deadline = time.monotonic() + timeout_s
    # A report may be a second old: two quiet looks in a row mean quiet.
    quiet = 0
    while quiet < 2 and time.monotonic() < deadline:
        await asyncio.sleep(0.7)
        quiet = quiet + 1 if await control.inflight.remote() == 0 else 0


def _stop_signal() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set. To be called after Ray has started: it takes SIGTERM for itself."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _check_port(host: str, port: int) -> None:
    """Raise if nothing can listen there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PruningError(
                f"cannot listen on {host}:{port} ({error.strerror}); stop what uses it, or choose another --port"
            ) from None


def _url(settings: Settings) -> str:
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    return f"http://{host}:{settings.port}"


def _say_hello(url: str, token: str, token_file: Path | None, store: Path, as_json: bool) -> None:
    bearer = f"$(cat {token_file})" if token_file else "$SPARSEDIAL_ADMIN_TOKEN"
    if as_json:
        print_json({"url": url, "store": str(store), "token_file": str(token_file) if token_file else None})
    ask = json.dumps({"inputs": "What a lovely surprise."})
    json_body = """-H 'content-type: application/json' -d '{"sparsity": 0.5}'"""
    for line in (
        f"serving on {url}",
        f"  ask      curl -s {url} -H 'content-type: application/json' -d '{ask}'",
        f"  dial     curl -s -X PUT '{url}/admin/sparsity?wait=30' -H \"authorization: Bearer {bearer}\" {json_body}",
        f"  look     {url}/docs",
        f"  metrics  curl -s {url}/metrics",
    ):
        stderr.print(line, markup=False, soft_wrap=True)
