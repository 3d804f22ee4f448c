"""Where a load goes: a base URL that is loopback unless said otherwise, and the headers that go with every request."""

import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from loadtests.errors import TargetError

DEFAULT_ROUTE = "/predict"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A service under test."""

    url: str
    """Base URL without a trailing slash."""
    route: str = DEFAULT_ROUTE
    api_key: str | None = None

    @property
    def endpoint(self) -> str:
        """URL that requests are posted to."""
        return self.url + self.route

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every inference request."""
        headers = {"content-type": "application/json"}
        if self.api_key:
            headers["authorization"] = f"Bearer {self.api_key}"
        return headers


def checked_target(
    url: str, *, route: str = DEFAULT_ROUTE, api_key: str | None = None, allow_remote: bool = False
) -> Target:
    """Return the target of ``url``.

    Raises:
        TargetError: not an HTTP URL, a name that does not resolve, or an address off this machine without
            ``allow_remote``. A load sent to the wrong host is an attack on it.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or parts.hostname is None:
        raise TargetError(f"{url!r} is no HTTP URL; give one such as http://127.0.0.1:8000")
    if not allow_remote:
        outside = [address for address in _addresses(parts.hostname) if not address.is_loopback]
        if outside:
            raise TargetError(f"{parts.hostname} is {outside[0]}, not this machine; add --allow-remote if you mean it")
    return Target(url=url.rstrip("/"), route=route, api_key=api_key)


def _addresses(host: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise TargetError(f"{host} does not resolve: {error}") from error
    return [ipaddress.ip_address(str(entry[4][0]).split("%")[0]) for entry in found]
