"""The operator's HTTP interface, mounted under ``/admin``: thin routes over the controller.

Every path asks for the admin token as a bearer, unknown paths and the documentation among them, but two: ``/health``,
for orchestrators, and ``/prometheus/targets``, because a Prometheus job's service discovery must work without a secret.
The latter shows addresses of metrics pages and nothing else.
"""

import asyncio
import hmac
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from pruning.errors import PruningError, SpecError
from pruning.spec import Pattern, Precision, PruneSpec, Recover, Structures
from pruning.spec import Scope as WeightScope
from service.answer_headers import AnswerHeaders, variant_headers
from service.bodies import read_json
from service.controller import VariantController
from service.documents import operation_document
from service.errors import Invalid, NotReady, ServiceError, Unauthorized
from service.limits import MAX_WAIT_S
from service.operations import Cause, Operation, Phase
from service.problems import install_problem_handlers, problem_response, send_problem, shown

MAX_BODY_BYTES = 65_536
OPEN_PATHS = frozenset({"/health", "/prometheus/targets"})
"""What is answered without a token; see the module's docstring."""

WaitS = Annotated[
    float,
    Query(alias="wait", ge=0, le=MAX_WAIT_S, allow_inf_nan=False, description="Seconds to wait for the change to end."),
]
FrontierRows = Callable[[], list[dict[str, Any]]]


class OperationFailed(Invalid):
    """A change that ended, within the wait, without a commit; the body has the operation's members."""

    def __init__(self, operation: Operation) -> None:
        """Say why, in the operation's own words."""
        super().__init__(operation.error or "the operation failed", **operation_document(operation))
        self._operation = operation

    def problem(self, request_id: str | None = None) -> dict[str, Any]:
        """Return the RFC 9457 body, with the operation's ``error_type``."""
        cause = self._operation.error_type
        return {**super().problem(request_id), "error_type": cause.value if cause else self.error_type}


class StoreUnreadable(ServiceError):
    """Something in the variant store is missing or damaged; the words name it."""

    title, error_type = "Variant store unreadable", "store"


def build_admin_api(
    controller_provider: Callable[[], VariantController],
    admin_token: str,
    *,
    frontier: FrontierRows,
    scorers: Collection[str],
    usual: Mapping[str, str] = MappingProxyType({}),
) -> FastAPI:
    """Return the admin application. It finds its own prefix in the request's ``root_path``, as a mount sets it.

    Args:
        controller_provider: gives the started controller; called for each request.
        admin_token: what a client must send as ``Authorization: Bearer``; never empty.
        frontier: rows of ``GET /frontier``; may read files, is called in a thread.
        scorers: names that a change may ask for.
        usual: what a change is taken to ask for where it does not say: the scorer, pattern, precision and recovery of
            the ladder; the recovery belongs to the pattern, and one that names another pattern says its own.
    """
    if not admin_token:
        raise ValueError("the admin token must not be empty")
    api = FastAPI(title="SparseDial admin", description="Turn sparsity while the service runs.")
    api.include_router(_change_routes(controller_provider, scorers, usual))
    api.include_router(_reading_routes(controller_provider, frontier))
    api.add_exception_handler(PruningError, _store_unreadable)
    install_problem_handlers(api)
    api.add_middleware(_BearerToken, token=admin_token)
    api.add_middleware(AnswerHeaders, variant=lambda: _committed_headers(controller_provider))
    return api


def _committed_headers(controller: Callable[[], VariantController]) -> dict[str, str]:
    try:
        generation, committed = controller().served()
    except NotReady:  # nothing is committed as far as this process knows
        return {}
    return variant_headers(generation, committed.variant_id, committed.achieved_sparsity)


def _change_routes(
    controller: Callable[[], VariantController], scorers: Collection[str], usual: Mapping[str, str]
) -> APIRouter:
    router = APIRouter(tags=["change"])

    @router.put(
        "/sparsity", openapi_extra=_body_schema(scorers, usual), responses={202: {"description": "It is running."}}
    )
    async def put_sparsity(request: Request, wait: WaitS = 0.0) -> Response:
        """Serve another variant. The same wish twice is one change; 200 once committed, 202 while it runs."""
        spec = parse_spec(await read_json(request, MAX_BODY_BYTES), scorers, usual)
        return await _answer(request, await controller().request_change(spec), wait)

    @router.post("/rollback", responses={202: {"description": "It is running."}})
    async def post_rollback(request: Request, wait: WaitS = 0.0) -> Response:
        """Take back the change that runs, or serve the previous variant again if none does."""
        operation = await controller().request_rollback()
        if operation.error_type is Cause.CANCELLED:
            return _document(request, operation)
        return await _answer(request, operation, wait)

    @router.get("/operations/{operation_id}")
    async def get_operation(operation_id: str) -> dict[str, Any]:
        """Return how far a change has come, or how it ended."""
        return operation_document(controller().operation(operation_id))

    async def _answer(request: Request, operation: Operation, wait_s: float) -> Response:
        """Return 200, 202 or raise the 422 that ``operation`` deserves after at most ``wait_s``."""
        if wait_s > 0:
            operation = await controller().wait(operation.id, wait_s)
        if operation.phase in (Phase.FAILED, Phase.ROLLED_BACK):
            raise OperationFailed(operation)
        return _document(request, operation)

    def _document(request: Request, operation: Operation) -> Response:
        location = f"{request.scope.get('root_path', '')}/operations/{operation.id}"
        status = 200 if operation.finished else 202
        return JSONResponse(operation_document(operation), status, headers={"location": location})

    return router


def _reading_routes(controller: Callable[[], VariantController], frontier: FrontierRows) -> APIRouter:
    router = APIRouter(tags=["read"])

    @router.get("/sparsity")
    async def get_sparsity() -> Response:
        """Return what is served, what it is worth, and who serves it."""
        status = controller().status()
        return JSONResponse(status, headers={"etag": f'"{status["generation"]}"'})

    @router.get("/variants")
    async def get_variants() -> dict[str, Any]:
        """Return the manifest of every variant in the store."""
        manifests = await asyncio.to_thread(controller().variants)
        return {"variants": [manifest.as_dict() for manifest in manifests]}

    @router.get("/frontier")
    async def get_frontier() -> dict[str, Any]:
        """Return accuracy against measured cost, level by level."""
        return {"levels": await asyncio.to_thread(frontier)}

    @router.get("/prometheus/targets")
    async def get_targets() -> list[dict[str, Any]]:
        """Return every metrics page, in the shape of Prometheus HTTP service discovery. No token is asked for."""
        return controller().targets()

    @router.get("/health")
    async def get_health() -> dict[str, str]:
        """Tell that the controller works. No token is asked for."""
        if not controller().healthy():
            raise NotReady("The controller is not running.", retry_after_s=1)
        return {"status": "ok"}

    return router


def parse_spec(body: Any, scorers: Collection[str], usual: Mapping[str, str]) -> PruneSpec:
    """Return the spec that a ``PUT /sparsity`` body asks for, the ``usual`` one where it says nothing.

    Raises:
        Invalid: not an object, a key too many or too few, or a value out of its range; names value and range.
    """
    if not isinstance(body, dict):
        raise Invalid(f'The body must be an object such as {{"sparsity": 0.5}}; got {shown(body)}.')
    if "sparsity" not in body:
        raise Invalid('"sparsity" is missing: a number in [0, 1), the share of encoder weights to remove.')
    if body.get("pattern", usual.get("pattern")) != usual.get("pattern"):
        usual = {name: value for name, value in usual.items() if name != "recover"}
    try:
        spec = PruneSpec.from_dict({**usual, **body})
    except SpecError as error:
        raise Invalid(f"{error}.") from error
    if spec.scorer not in scorers:
        raise Invalid(f"unknown scorer {shown(spec.scorer)}; known: {', '.join(sorted(scorers))}.")
    return spec


def _body_schema(scorers: Collection[str], usual: Mapping[str, str]) -> dict[str, Any]:
    """Return the OpenAPI words for the body, which ``read_json`` reads in place of FastAPI."""
    taken = PruneSpec.from_dict({"sparsity": 0.0, **usual}).as_dict()
    properties = {
        "sparsity": {"type": "number", "minimum": 0, "exclusiveMaximum": 1},
        "pattern": {"enum": [pattern.value for pattern in Pattern], "default": taken["pattern"]},
        "scorer": {"enum": sorted(scorers), "default": taken["scorer"]},
        "recover": {"enum": [recover.value for recover in Recover]},
        "scope": {"enum": [scope.value for scope in WeightScope]},
        "structures": {"enum": [structures.value for structures in Structures], "default": Structures.HEADS.value},
        "precision": {"enum": [precision.value for precision in Precision], "default": taken["precision"]},
    }
    schema = {"type": "object", "properties": properties, "required": ["sparsity"], "additionalProperties": False}
    content = {"application/json": {"schema": schema, "example": {"sparsity": 0.5}}}
    return {"requestBody": {"required": True, "content": content}}


async def _store_unreadable(request: Request, error: Exception) -> Response:
    return problem_response(StoreUnreadable(f"{error}."), request)


class _BearerToken:
    """Lets through who knows the token; compares in constant time."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._is_open(scope) or self._is_authorized(scope):
            await self._app(scope, receive, send)
            return
        refusal = Unauthorized("Send the admin token: 'Authorization: Bearer <token>'.")
        await send_problem(refusal, scope, receive, send)

    @staticmethod
    def _is_open(scope: Scope) -> bool:
        return scope["path"].removeprefix(scope.get("root_path", "")) in OPEN_PATHS

    def _is_authorized(self, scope: Scope) -> bool:
        sent = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, token = (sent[0] if len(sent) == 1 else b"").partition(b" ")
        return hmac.compare_digest(token.strip(), self._token) and scheme.lower() == b"bearer"
