"""``sparsedial serve``: prepare, start Ray and the two applications, say where to look, drain on SIGTERM."""

import errno
import json
import signal
import socket
import threading
from pathlib import Path

from pruning.errors import PruningError
from pruning.files import sweep_asides
from pruning.frontier import frontier_rows
from pruning.workbench import Workbench
from service.fast_path import set_environment, socket_folder
from service.ladder import ladder_specs, prepare_ladder
from service.locks import sole_service
from service.preflight import check_floor, check_store
from service.ray_service import RayService
from service.running import leave_note, remove_note
from service.settings import Settings
from service.sources import Sources, admin_token, resolve
from service.state import STATE, StateFile
from service.terminal import frontier_table, print_json, print_table, spinner, stderr


def launch(settings: Settings, *, as_json: bool) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code.

    Raises:
        PruningError: the model, rows or store cannot be used, or the port is taken.
    """
    _check_port(settings.host, settings.port)
    sources = resolve(settings)
    with sole_service(sources.store), socket_folder() as folder:
        sweep_asides(sources.store)
        _, token_file = admin_token(settings, sources.store)
        ladder_ids, initial = _prepare(settings, sources)
        set_environment(settings.ingress, folder, replicas=settings.replicas, own_cluster=settings.address is None)
        service = RayService(settings, sources, ladder_ids, initial)
        url = _url(settings)
        try:
            with spinner("starting Ray and the replicas"):
                service.connect()
                stop = _stop_signal()
                service.deploy(url)
            leave_note(settings.port, url, token_file)
            _say_hello(url, token_file, sources.store, as_json)
            stop.wait()
            stderr.print("stopping: requests in flight are finished first")
        finally:
            remove_note(settings.port)
            service.stop(settings.drain_timeout_s)
    return 0


def _prepare(settings: Settings, sources: Sources) -> tuple[tuple[str, ...], str]:
    """Return (ladder's variant ids, dense first; the initial one), with a table of what they cost and buy."""
    bench = Workbench.open(sources.model, sources.train, sources.evaluation, sources.store)
    specs = ladder_specs(
        (*settings.levels, settings.sparsity), settings.scorer, settings.pattern, precision=settings.precision
    )
    manifests = prepare_ladder(bench, specs)
    ids = tuple(manifest.variant_id for manifest in manifests)
    initial = next(m.variant_id for m in manifests if m.spec.sparsity == settings.sparsity)
    state_file = StateFile(sources.store / STATE)
    check_store(bench, ids, state_file)
    warnings = check_floor(bench.store, ids, initial, settings.accuracy_floor, state_file)
    rows = [row for row in frontier_rows(bench.store, bench.base.digest) if row["variant"] in ids]
    print_table(frontier_table(rows), stderr)
    for warning in warnings:
        stderr.print(f"warning: {warning}", markup=False)
    return ids, initial


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
            remedy = (
                "stop what uses it, or choose another --port"
                if error.errno == errno.EADDRINUSE
                else "--host wants an IPv4 address of this machine, or a name of one, and --port one that you may use"
            )
            raise PruningError(f"cannot listen on {host}:{port} ({error.strerror}); {remedy}") from None


def _url(settings: Settings) -> str:
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    return f"http://{host}:{settings.port}"


def _say_hello(url: str, token_file: Path | None, store: Path, as_json: bool) -> None:
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
