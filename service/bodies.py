"""Reading a JSON request body: the right type, the right size, the right encoding, or a refusal that says which."""

import json
import re
from typing import Any

from starlette.requests import ClientDisconnect, Request

from service.errors import BadRequest, TooLarge, UnsupportedMedia

_JSON_TYPE = re.compile(r"application/([\w.-]+\+)?json")


async def read_json(request: Request, max_bytes: int) -> Any:
    """Return the parsed body of ``request``.

    The tokens ``NaN`` and ``Infinity`` are let through as floats, so that validation can refuse them by the name of
    the field that holds them.

    Raises:
        UnsupportedMedia: the content type is not JSON in UTF-8.
        TooLarge: more than ``max_bytes`` were announced or sent.
        BadRequest: the body is empty, cut off, not UTF-8 or not JSON.
    """
    _require_json_type(request.headers.get("content-type", ""))
    return _parse(await _read_bytes(request, max_bytes))


def _require_json_type(content_type: str) -> None:
    """Refuse what does not announce itself as JSON in UTF-8."""
    media_type, _, parameters = content_type.lower().partition(";")
    media_type = media_type.strip()
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        raise UnsupportedMedia(
            f"Content-Type must be application/json; got {media_type or 'none'}. Send the header "
            "'Content-Type: application/json'."
        )
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        charset = value.strip().strip('"')
        if name.strip() == "charset" and charset not in ("utf-8", "utf8"):
            raise UnsupportedMedia(f"The body must be UTF-8; got charset {charset}.")


async def _read_bytes(request: Request, max_bytes: int) -> bytes:
    """Return the raw body, refusing an oversize one before it is held in memory."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > max_bytes:
        raise _too_large(max_bytes)
    body = bytearray()
    try:
        async for chunk in request.stream():
            if len(body) + len(chunk) > max_bytes:
                raise _too_large(max_bytes)
            body += chunk
    except ClientDisconnect as error:
        raise BadRequest("The connection closed before the whole body had arrived.") from error
    return bytes(body)


def _too_large(max_bytes: int) -> TooLarge:
    """Return the refusal that names the limit."""
    return TooLarge(
        f"The body is larger than the limit of {max_bytes} bytes. Send less at once.", limit_bytes=max_bytes
    )


def _parse(body: bytes) -> Any:
    """Return the JSON value of ``body``; a byte order mark before it is ignored."""
    if not body.strip():
        raise BadRequest("The body is empty; send a JSON value.")
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadRequest(f"The body is not UTF-8: byte {error.start} cannot be decoded.") from error
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise BadRequest(f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}.") from error
    except ValueError as error:
        raise BadRequest("The body holds a number with too many digits.") from error
    except RecursionError as error:
        raise BadRequest("The body is nested too deeply.") from error
