"""The server that every process of the service has for the others: its metrics page, and feedback for its answers.

It listens beside the public one, on a free port. Metrics need no secret; feedback wants a key that every replica
derives from the admin token, so that it is as hard to forge as a change of sparsity.
"""

import hashlib
import hmac
import json
import socket
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app

from service.errors import BadRequest, NotFound, NotReady, ServiceError, Unauthorized

FEEDBACK_PATH = "/feedback"
MAX_BODY_BYTES = 65_536

Feedback = Callable[[str, list[str]], dict[str, Any]]
"""(request id, true labels) -> the JSON of what they say; raises ``ServiceError``. Called in a thread of the server."""


class InternalPages:
    """One process's server; ``close`` ends it."""

    def __init__(self, registry: CollectorRegistry, host: str, key: str = "") -> None:
        """Listen on a free port of ``host``, in a thread.

        Args:
            registry: what the metrics page shows.
            host: address to listen on.
            key: what a peer must send with feedback; without one none is taken.
        """
        self._metrics = make_wsgi_app(registry)
        self._key = key
        self.feedback: Feedback | None = None
        """Takes feedback once it is set."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        server_class = type("_Server", (ThreadingMixIn, WSGIServer), {"address_family": family, "daemon_threads": True})
        self._server: WSGIServer = make_server(host, 0, self._application, server_class, _Silent)
        self.address = f"[{host}]:{self._server.server_port}" if ":" in host else f"{host}:{self._server.server_port}"
        """``host:port``."""
        _serve_in_thread(self._server)

    def close(self) -> None:
        """Listen no longer."""
        self._server.shutdown()
        self._server.server_close()

    def _application(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] != FEEDBACK_PATH:
            page: Iterable[bytes] = self._metrics(environ, start_response)
            return page
        try:
            status, body = 200, self._taken(environ)
        except ServiceError as error:
            status, body = error.status, error.problem()
        start_response(f"{status} {'OK' if status == 200 else 'Refused'}", [("content-type", "application/json")])
        return [json.dumps(body).encode()]

    def _taken(self, environ: WSGIEnvironment) -> dict[str, Any]:
        given = environ.get("HTTP_AUTHORIZATION", "").removeprefix("Bearer ")
        if not self._key or not hmac.compare_digest(given.encode(), self._key.encode()):
            raise Unauthorized("Feedback is passed on between replicas alone; post it to /v1/feedback.")
        if environ["REQUEST_METHOD"] != "POST":
            raise NotFound("Feedback is posted.")
        if self.feedback is None:
            raise NotReady("This replica is starting.", retry_after_s=1)
        try:
            length = min(int(environ.get("CONTENT_LENGTH") or 0), MAX_BODY_BYTES)
            body = json.loads(environ["wsgi.input"].read(length))
            request_id, labels = str(body["request_id"]), [str(label) for label in body["labels"]]
        except (ValueError, KeyError, TypeError) as error:
            raise BadRequest("Not a request id with labels.") from error
        return self.feedback(request_id, labels)


def peer_key(admin_token: str) -> str:
    """Return the key that replicas of one service share; it does not give the token away."""
    return hashlib.sha256(f"sparsedial peers {admin_token}".encode()).hexdigest()


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        """Write nothing: scrapes come every few seconds."""


def _serve_in_thread(server: WSGIServer) -> None:
    threading.Thread(target=server.serve_forever, name="internal-pages", daemon=True).start()
