"""The id of a request: the caller's own if it is a sane one, else a new one."""

import re
import uuid

from starlette.types import Scope

HEADER = "x-request-id"

_SANE = re.compile(rb"[\w.:/+=@-]{1,128}", re.ASCII)


def request_id_of(scope: Scope) -> str:
    """Return the request's id."""
    given: bytes = next((value for name, value in scope["headers"] if name == HEADER.encode()), b"")
    return given.decode("ascii") if _SANE.fullmatch(given) else uuid.uuid4().hex
