"""Every error answer of both applications in one shape: ``application/problem+json`` (RFC 9457)."""

import json
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import PROBLEM_JSON, Invalid, ServiceError

logger = logging.getLogger(__name__)

_MAX_SHOWN = 80
"""Characters of a refused value that an answer repeats."""

_ERROR_TYPES = {kind.status: kind.error_type for kind in ServiceError.__subclasses__()}


def install_problem_handlers(api: FastAPI) -> None:
    """Make ``api`` answer every error as a problem document.

    A middleware that sets ``request.state.request_id`` gets it repeated in the body. Install before adding other
    middleware, which then also sees the answers to unexpected exceptions.
    """
    api.add_exception_handler(ServiceError, _service_error)
    api.add_exception_handler(RequestValidationError, _validation_error)
    api.add_exception_handler(HTTPException, _http_exception)
    api.add_middleware(_UnexpectedErrors)


def problem_response(error: ServiceError, request: Request) -> Response:
    """Return the answer that ``error`` stands for."""
    return _response(error.problem(_request_id(request)), error.headers())


async def send_problem(error: ServiceError, scope: Scope, receive: Receive, send: Send) -> None:
    """Give the answer that ``error`` stands for from within a middleware."""
    await problem_response(error, Request(scope))(scope, receive, send)


def shown(value: object) -> str:
    """Return ``value`` as an error may repeat it: as Python writes it, cut to a readable length."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


async def _service_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    return problem_response(error, request)


async def _validation_error(request: Request, error: Exception) -> Response:
    """Name every parameter that FastAPI refused, with its value."""
    assert isinstance(error, RequestValidationError)
    parts = [f"{item['loc'][-1]}: {item['msg']}; got {shown(item['input'])}" for item in error.errors()]
    return problem_response(Invalid(". ".join(parts) + "."), request)


async def _http_exception(request: Request, error: Exception) -> Response:
    """Keep the status and headers of what the router refuses: unknown paths, wrong methods."""
    assert isinstance(error, HTTPException)
    title = HTTPStatus(error.status_code).phrase
    detail = f"{title}: {request.method} {request.url.path}."
    body: dict[str, Any] = {
        **ServiceError(detail).problem(_request_id(request)),
        "title": title,
        "status": error.status_code,
        "error_type": _ERROR_TYPES.get(error.status_code, title.lower().replace(" ", "_")),
    }
    return _response(body, {**(error.headers or {}), "content-type": PROBLEM_JSON})


def _request_id(request: Request) -> str | None:
    return getattr(request.state, "request_id", None)


def _response(body: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
    """Return ``body`` as ASCII JSON, so that no text in it can fail to be encoded."""
    return Response(json.dumps(body).encode("ascii"), status_code=body["status"], headers=dict(headers))


class _UnexpectedErrors:
    """Answers 500 without private words, and logs the exception once with its traceback."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except Exception:
            logger.exception("unexpected error answering %s %s", scope["method"], scope["path"])
            if started:
                raise
            error = ServiceError("Something failed inside the service; its log says what.")
            await send_problem(error, scope, receive, send)
