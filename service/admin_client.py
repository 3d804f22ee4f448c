"""The admin API as the commands use it: over HTTP, with words a person can act on."""

import time
from typing import Any

import httpx

DEFAULT_URL = "http://127.0.0.1:8000"
REFUSED, BAD_INPUT, NO_SERVICE = 1, 2, 3
"""Exit codes of what went wrong; 0 is done."""

_UNFINISHED = ("building", "preparing", "trying")
_AGAIN_S = 0.5
"""Pause before a change is asked for again whose connection was cut."""


class AdminError(Exception):
    """The service refused, or cannot be reached."""

    def __init__(self, message: str, exit_code: int, document: dict[str, Any] | None = None) -> None:
        """Keep the words, the exit code of the command, and what the service answered, if it did."""
        super().__init__(message)
        self.exit_code = exit_code
        self.document = document

    @property
    def away(self) -> bool:
        """Whether the controller may be back in a moment: nobody answered, or it is starting."""
        return self.exit_code == NO_SERVICE or (self.document or {}).get("status") == 503


class ConnectionCut(AdminError):
    """The request arrived and its answer did not: the controller may be restarting."""


class AdminClient:
    """One service's admin routes."""

    def __init__(self, url: str, token: str | None) -> None:
        """Talk to the service at ``url`` with its admin ``token``; without one it refuses."""
        self._url = url.rstrip("/")
        self._headers = {} if token is None else {b"authorization": f"Bearer {token}".encode()}

    def status(self) -> dict[str, Any]:
        """Return the state of the dial."""
        return self._call("GET", "/admin/sparsity", "generation")

    def policy(self, members: dict[str, Any]) -> dict[str, Any]:
        """Set some members of the policy, if any are given; return all of it.

        Raises:
            AdminError: a member that cannot be valid, or a service that cannot be asked.
        """
        return self._call("PUT" if members else "GET", "/admin/policy", "mode", body=members or None)

    def dial(self, change: dict[str, Any], wait_s: float) -> dict[str, Any]:
        """Ask for a change; return its operation, committed unless ``wait_s`` is 0.

        Should the connection be cut, the same change is asked for again until ``wait_s`` is over: twice is one change.

        Raises:
            AdminError: it was refused, it failed, or it is still running after ``wait_s``.
        """
        deadline = time.monotonic() + wait_s
        cut = False
        while True:
            left_s = max(0.0, round(deadline - time.monotonic(), 1))
            try:
                operation = self._call("PUT", "/admin/sparsity", "phase", body=change, wait_s=left_s)
                return self._finished(operation, wait_s)
            except AdminError as error:
                cut = cut or isinstance(error, ConnectionCut)
                if not (cut and error.away) or left_s == 0.0:
                    raise
            time.sleep(_AGAIN_S)

    def plan(self, wish: dict[str, Any]) -> dict[str, Any]:
        """Return what a level would be worth and cost, or the best level within bounds; nothing changes.

        Raises:
            AdminError: it was refused.
        """
        return self._call("POST", "/admin/plan", "p99_ms", body=wish)

    def rollback(self, wait_s: float) -> dict[str, Any]:
        """Undo the last change; return its operation: the one that ran, taken back, or that of the previous variant.

        Raises:
            AdminError: it was refused, it failed, or it is still running after ``wait_s``.
        """
        return self._finished(self._call("POST", "/admin/rollback", "phase", wait_s=wait_s), wait_s)

    @staticmethod
    def _finished(operation: dict[str, Any], wait_s: float) -> dict[str, Any]:
        if wait_s > 0 and operation["phase"] in _UNFINISHED:
            raise AdminError(
                f"operation {operation['id']} is still {operation['phase']} after {wait_s:g} s and goes on; "
                "'sparsedial status' shows it, --wait gives it longer",
                REFUSED,
                operation,
            )
        return operation

    def _call(
        self,
        method: str,
        path: str,
        member: str,
        *,
        body: dict[str, Any] | None = None,
        wait_s: float | None = None,
    ) -> dict[str, Any]:
        """Return the JSON object that the service answers, which must have ``member``."""
        params = None if wait_s is None else {"wait": wait_s}
        try:
            answer = httpx.request(
                method,
                self._url + path,
                json=body,
                params=params,
                headers=self._headers,
                timeout=10 + (wait_s or 0),
                trust_env=False,
            )
        except (httpx.RemoteProtocolError, httpx.ReadError) as error:
            raise ConnectionCut(
                f"{self._url} cut the connection before it answered ({error}); the controller may be restarting, and "
                "what was asked for may go on: see 'sparsedial status'",
                NO_SERVICE,
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise AdminError(
                f"no service answers at {self._url} ({error}); start one with 'sparsedial serve'", NO_SERVICE
            ) from None
        document = _json_object(answer)
        if document is None or (answer.is_success and member not in document):
            raise AdminError(
                f"{self._url} answered {answer.status_code}, but not as SparseDial does; check --url", NO_SERVICE
            )
        if not answer.is_success:
            raise _refusal(answer.status_code, document)
        return document


def _json_object(answer: httpx.Response) -> dict[str, Any] | None:
    """Return the body if it is a JSON object."""
    try:
        document = answer.json()
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _refusal(status: int, document: dict[str, Any]) -> AdminError:
    """Return what an error answer means for the command: whose fault, in which words."""
    detail = str(document.get("detail", document))
    if status == 401:
        return AdminError(
            "no admin token that the service accepts; give --token or set SPARSEDIAL_ADMIN_TOKEN (a service for which "
            "none was set keeps one in the file admin.token of its store)",
            BAD_INPUT,
            document,
        )
    # A change that ended badly is a 422 too, but it has an operation's members: the wish itself was sound.
    is_bad_input = status == 422 and "phase" not in document
    return AdminError(detail, BAD_INPUT if is_bad_input else REFUSED, document)
