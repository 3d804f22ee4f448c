"""Every refusal the service can give, with the HTTP status and the public words that go with it.

    ServiceError
    ├── BadRequest 400              malformed body, encoding or header
    ├── Unauthorized 401            missing or wrong bearer token
    ├── NotFound 404
    ├── Conflict 409                another change is running
    ├── PreconditionFailed 412      another generation than the one that If-Match names
    ├── TooLarge 413                body, text or batch beyond a stated limit
    ├── UnsupportedMedia 415
    ├── Invalid 422                 well-formed, but not a value this service accepts
    ├── Overloaded 429              queue full; carries Retry-After
    ├── InferenceFailed 500
    ├── NotReady 503                starting or draining; carries Retry-After
    └── DeadlineExceeded 504

Bodies are ``application/problem+json`` (RFC 9457) with ``error`` and ``error_type`` as extension members, so that
clients of text-embeddings-inference and of the Open Inference Protocol find the words they look for.
"""

from typing import Any, ClassVar

PROBLEM_JSON = "application/problem+json"


class ServiceError(Exception):
    """A refusal with public words: ``detail`` says who, what, and what to do. Never put secrets or bodies in it."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    error_type: ClassVar[str] = "internal"

    def __init__(self, detail: str, *, retry_after_s: int | None = None, **extensions: Any) -> None:
        """Keep the public words; ``extensions`` become extra members of the problem body."""
        super().__init__(detail)
        self.detail = detail
        self.retry_after_s = retry_after_s
        self.extensions = extensions

    def problem(self, request_id: str | None = None) -> dict[str, Any]:
        """Return the RFC 9457 body."""
        body: dict[str, Any] = {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "error": self.detail,
            "error_type": self.error_type,
        }
        if request_id is not None:
            body["request_id"] = request_id
        if self.retry_after_s is not None:
            body["retry_after_s"] = self.retry_after_s
        return {**self.extensions, **body}

    def headers(self) -> dict[str, str]:
        """Return the headers that go with the body."""
        headers = {"content-type": PROBLEM_JSON}
        if self.retry_after_s is not None:
            headers["retry-after"] = str(self.retry_after_s)
        return headers


class BadRequest(ServiceError):
    """The body is empty, is not JSON or is not UTF-8."""

    status, title, error_type = 400, "Bad request", "bad_request"


class Unauthorized(ServiceError):
    """No bearer token, or a wrong one."""

    status, title, error_type = 401, "Unauthorized", "unauthorized"

    def headers(self) -> dict[str, str]:
        """Return the headers, the challenge among them."""
        return {**super().headers(), "www-authenticate": "Bearer"}


class NotFound(ServiceError):
    """The named thing does not exist."""

    status, title, error_type = 404, "Not found", "not_found"


class Conflict(ServiceError):
    """Another change is running."""

    status, title, error_type = 409, "Conflict", "conflict"


class PreconditionFailed(ServiceError):
    """The generation, or the policy, is not the one that the request was made for."""

    status, title, error_type = 412, "Precondition failed", "precondition"


class TooLarge(ServiceError):
    """The body, a text or a batch is beyond a stated limit."""

    status, title, error_type = 413, "Content too large", "too_large"


class UnsupportedMedia(ServiceError):
    """The body is not JSON by its content type."""

    status, title, error_type = 415, "Unsupported media type", "unsupported_media_type"


class Invalid(ServiceError):
    """Well-formed, but not a value that this service accepts."""

    status, title, error_type = 422, "Unprocessable content", "validation"


class Overloaded(ServiceError):
    """The queue is full."""

    status, title, error_type = 429, "Too many requests", "overloaded"


class InferenceFailed(ServiceError):
    """The engine could not answer this request; others are not touched."""

    status, title, error_type = 500, "Inference failed", "backend"


class NotReady(ServiceError):
    """Starting, or draining before a stop."""

    status, title, error_type = 503, "Not ready", "unhealthy"


class DeadlineExceeded(ServiceError):
    """No answer within the request's time limit."""

    status, title, error_type = 504, "Deadline exceeded", "timeout"
