"""``sparsedial serve``: prepare, start Ray and the two applications, say where to look, drain on SIGTERM."""

import errno
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pruning.errors import PruningError
from pruning.files import sweep_asides
from pruning.freed_memory import give_back
from pruning.frontier import frontier_rows
from pruning.workbench import Workbench
from service.engine_choice import require_engine
from service.fast_path import set_environment, socket_folder
from service.ladder import Ladder, prepare_ladder, specs_of
from service.locks import sole_service
from service.preflight import check_floor, check_store
from service.ray_service import RayService
from service.running import leave_note, remove_note
from service.served import require_served
from service.settings import Settings
from service.sources import Sources, admin_token, resolve
from service.state import STATE, StateFile
from service.stop_signals import StopSignals
from service.terminal import print_frontier, print_json, spinner, stderr

STOPPED_EARLY = 1
"""Exit code of a service that was stopped before it served."""


def launch(settings: Settings, *, as_json: bool) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code. One that comes before it serves ends the start.

    Raises:
        PruningError: the model, rows, store or engine cannot be used, or the port is taken.
    """
    with StopSignals() as signals:
        try:
            _serve(settings, signals, as_json)
        except (KeyboardInterrupt, SystemExit):  # while Ray starts, it makes the second of SIGTERM
            stderr.print("stopped before it served; nothing of it runs any more")
            return STOPPED_EARLY
    return 0


def _serve(settings: Settings, signals: StopSignals, as_json: bool) -> None:
    require_engine(settings.engine)
    _check_port(settings.host, settings.port)
    sources = resolve(settings)
    with sole_service(sources.store), socket_folder() as folder:
        sweep_asides(sources.store)
        _, token_file = admin_token(settings, sources.store)
        ladder = _prepare(settings, sources)
        give_back()
        set_environment(settings.ingress, folder, replicas=settings.most_replicas, own_cluster=settings.address is None)
        service = RayService(settings, sources, ladder)
        url = _url(settings)
        try:
            try:
                with spinner("starting Ray and the replicas"):
                    service.connect()
                    signals.take()  # from Ray
                    service.deploy(url)
                _try_note(leave_note, settings.port, url, token_file)
                _say_hello(url, token_file, sources.store, as_json)
                signals.wait()
            except KeyboardInterrupt:
                if not service.serving:  # else it may have been asked by now: a stop like any other
                    raise
            stderr.print("stopping: requests in flight are finished first")
        finally:
            signals.hold()
            try:
                service.stop(settings.drain_timeout_s)
            finally:
                _try_note(remove_note, settings.port)


def _try_note(act: Callable[..., None], *arguments: Any) -> None:
    """Leave or take back the note; a disk that stands against it is no reason to stop serving."""
    try:
        act(*arguments)
    except OSError as error:
        stderr.print(
            f"warning: the note of this service: {error}; give dial, rollback and status their --token", markup=False
        )


def _prepare(settings: Settings, sources: Sources) -> Ladder:
    """Return the ladder, with a table of what its levels cost and buy."""
    bench = Workbench.open(sources.model, sources.train, sources.evaluation, sources.store)
    require_served(bench.base)
    manifests = prepare_ladder(bench, specs_of(settings))
    built = tuple(manifest.variant_id for manifest in manifests)
    ladder = Ladder.of(manifests, bench.store, settings)
    state_file = StateFile(sources.store / STATE)
    check_store(bench, built, state_file)
    warnings = check_floor(bench.store, ladder.variant_ids, ladder.initial, settings.accuracy_floor, state_file)
    print_frontier(frontier_rows(bench.store, bench.base.digest, only=built), stderr)
    for warning in warnings:
        stderr.print(f"warning: {warning}", markup=False)
    return ladder


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
