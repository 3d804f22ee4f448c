"""The admin API as the commands use it: over HTTP, with words a person can act on."""

from typing import Any

import httpx

DEFAULT_URL = "http://127.0.0.1:8000"


class AdminError(Exception):
    """The service refused, or cannot be reached; ``exit_code`` is what the command ends with."""

    def __init__(self, message: str, exit_code: int) -> None:
        """Keep the words and the exit code."""
        super().__init__(message)
        self.exit_code = exit_code


class AdminClient:
    """One service's admin routes."""

    def __init__(self, url: str, token: str) -> None:
        """Talk to the service at ``url`` with its admin ``token``."""
        self._url = url.rstrip("/")
        self._headers = {"authorization": f"Bearer {token}"}

    def status(self) -> dict[str, Any]:
        """Return the state of the dial."""
        return self._call("GET", "/admin/sparsity")

    def dial(self, change: dict[str, Any], wait_s: float) -> dict[str, Any]:
        """Ask for a change; return its operation, finished if it finishes within ``wait_s``."""
        return self._call("PUT", "/admin/sparsity", body=change, wait_s=wait_s)

    def rollback(self, wait_s: float) -> dict[str, Any]:
        """Ask for the previous variant; return the operation."""
        return self._call("POST", "/admin/rollback", wait_s=wait_s)

    def _call(
        self, method: str, path: str, *, body: dict[str, Any] | None = None, wait_s: float | None = None
    ) -> dict[str, Any]:
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
        except httpx.HTTPError as error:
            raise AdminError(
                f"no service answers at {self._url} ({error}); start one with 'sparsedial serve'", 3
            ) from None
        try:
            values: dict[str, Any] = answer.json()
        except ValueError:
            raise AdminError(f"{self._url} answered {answer.status_code} without JSON; is it SparseDial?", 3) from None
        if answer.is_error:
            raise AdminError(str(values.get("detail", values)), 2 if answer.status_code in (401, 422) else 1)
        return values
