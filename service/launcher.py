"""``sparsedial serve``: prepare, start Ray and the two applications, say where to look, drain on SIGTERM."""

import asyncio
import json
import logging
import signal
import socket
import threading
import time
from pathlib import Path

from pruning.errors import PruningError
from pruning.frontier import frontier_rows, measure_side_by_side
from pruning.workbench import Workbench
from service.fast_path import set_environment
from service.ladder import ladder_specs, prepare_ladder
from service.locks import sole_service
from service.running import leave_note, remove_note
from service.settings import Device, Settings
from service.sources import Sources, admin_token, resolve
from service.terminal import frontier_table, print_json, progress_bar, stderr

OBJECT_STORE_BYTES = 200_000_000
"""Ray's shared memory: nothing large travels between our processes."""


def launch(settings: Settings, *, as_json: bool) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code.

    Raises:
        PruningError: the model, rows or store cannot be used, or the port is taken.
    """
    _check_port(settings.host, settings.port)
    sources = resolve(settings)
    with sole_service(sources.store):
        token, token_file = admin_token(settings, sources.store)
        ladder_ids, initial = _prepare(settings, sources)
        set_environment(settings.ingress)
        stop = _stop_signal()
        service = _Service(settings, sources, ladder_ids, initial)
        try:
            with stderr.status("starting Ray and the replicas"):
                service.start()
            url = _url(settings)
            leave_note(settings.port, url, token_file)
            _say_hello(url, token, token_file, sources.store, as_json)
            stop.wait()
            stderr.print("stopping: requests in flight are finished first")
            service.drain(settings.drain_timeout_s)
        finally:
            remove_note(settings.port)
            service.stop()
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
    stderr.print(frontier_table([r for r in frontier_rows(bench.store, bench.base.digest) if r["variant"] in ids]))
    return ids, next(m.variant_id for m in manifests if m.spec.sparsity == settings.sparsity)


class _Service:
    """The Ray side of a running service. Ray is imported only after the environment is set."""

    def __init__(self, settings: Settings, sources: Sources, ladder_ids: tuple[str, ...], initial: str) -> None:
        self._settings = settings
        self._sources = sources
        self._ladder_ids = ladder_ids
        self._initial = initial

    def start(self) -> None:
        """Bring up a cluster (or join one), then control, then model; return when both serve."""
        import ray
        from ray import serve

        from service.app import control_application, model_application
        from service.cluster import CONTROL_APP, MODEL_APP
        from service.control import Ladder

        settings = self._settings
        logging.getLogger("ray").setLevel(logging.ERROR)
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
        gpus = ray.cluster_resources().get("GPU", 0)
        wants_gpu = settings.device is Device.CUDA or (settings.device is Device.AUTO and gpus >= 1)
        ladder = Ladder(self._ladder_ids, self._initial)
        serve.run(control_application(settings, self._sources, ladder), name=CONTROL_APP, route_prefix="/admin")
        serve.run(
            model_application(settings, self._sources, num_gpus=1 if wants_gpu else 0), name=MODEL_APP, route_prefix="/"
        )

    def drain(self, timeout_s: float) -> None:
        """Let every replica refuse new requests and finish what it has; give up after ``timeout_s``."""
        asyncio.run(_drain(timeout_s))

    def stop(self) -> None:
        """End the applications and a cluster of our own."""
        import ray
        from ray import serve

        serve.shutdown()
        ray.shutdown()


async def _drain(timeout_s: float) -> None:
    from ray import serve

    from service.cluster import CONTROL_APP

    control = serve.get_app_handle(CONTROL_APP)
    await control.drain.remote()
    deadline = time.monotonic() + timeout_s
    # A report may be a second old: two quiet looks in a row mean quiet.
    quiet = 0
    while quiet < 2 and time.monotonic() < deadline:
        await asyncio.sleep(0.7)
        quiet = quiet + 1 if await control.inflight.remote() == 0 else 0


def _stop_signal() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set."""
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
