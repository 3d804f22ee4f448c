"""A service's admin routes on a loopback port, with answers that the test chooses, in the shapes of the real ones."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from service.documents import operation_document, status_document
from service.operations import RolloutState
from service.policy import Policy
from service.tally import Tally
from tests.service.control_parts import DENSE, FLOOR, first_state, manifest_of, report_of
from tests.service.rollout_parts import after, broken, built, change, reported, rollback

COMMITTED = operation_document(after(first_state(), change(), built(), reported()).history[-1])
FAILED = operation_document(after(first_state(), change(), broken()).history[-1])
TAKEN_BACK = operation_document(after(first_state(), change(), rollback()).history[-1])
BUILDING_STATE = after(first_state(), change())


def building() -> dict[str, Any]:
    assert BUILDING_STATE.operation is not None
    return operation_document(BUILDING_STATE.operation)


def status_of(state: RolloutState) -> dict[str, Any]:
    return status_document(
        state, manifest_of(DENSE), Policy(accuracy_floor=FLOOR), [report_of()], Tally(variant_id="v"), None, None
    )


def problem(status: int, detail: str, **members: Any) -> dict[str, Any]:
    return {**members, "type": "about:blank", "status": status, "detail": detail, "error": detail}


@dataclass(frozen=True)
class Asked:
    """One request that came in."""

    method: str
    path: str
    authorization: str | None
    body: Any


@dataclass
class FakeAdmin:
    """Answers every request with ``status`` and ``body``, and remembers it."""

    url: str = ""
    status: int = 200
    body: Any = None
    cuts: int = 0
    """Requests still to be left without an answer, their connections closed."""
    asked: list[Asked] = field(default_factory=list)

    def answers(self, status: int, body: Any) -> None:
        self.status, self.body = status, body


@contextmanager
def serving() -> Iterator[FakeAdmin]:
    admin = FakeAdmin()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            sent = self.rfile.read(int(self.headers.get("content-length", 0)))
            asked = Asked(
                self.command, self.path, self.headers.get("authorization"), json.loads(sent) if sent else None
            )
            admin.asked.append(asked)
            if admin.cuts > 0:
                admin.cuts -= 1
                self.close_connection = True
                return
            body = admin.body if isinstance(admin.body, bytes) else json.dumps(admin.body).encode()
            self.send_response(admin.status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_POST = _answer

        def log_message(self, *_: object) -> None:
            """Keep stderr for the command that is tested."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    admin.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield admin
    server.shutdown()
    thread.join()
    server.server_close()
