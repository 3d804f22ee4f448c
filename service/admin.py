"""The operator's HTTP interface, mounted under ``/admin``: thin routes over the controller.

Every path asks for the admin token as a bearer, unknown paths and the documentation among them, but two: ``/health``,
for orchestrators, and ``/prometheus/targets``, because a Prometheus job's service discovery must work without a secret.
The latter shows addresses of metrics pages and nothing else.
"""

import asyncio
import hmac
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from pruning.errors import PruningError
from service.answer_headers import AnswerHeaders, variant_headers
from service.bodies import read_json
from service.change_requests import (
    MAX_BODY_BYTES,
    canary_fraction,
    change_schema,
    expected_generation,
    expected_policy,
    parse_spec,
    without_canary,
)
from service.controller import VariantController
from service.documents import operation_document
from service.errors import Invalid, NotReady, ServiceError, Unauthorized
from service.event_routes import event_routes
from service.limits import MAX_WAIT_S
from service.operations import Cause, Operation, Phase
from service.plan_routes import plan_routes
from service.policy import MEMBERS, Policy
from service.problems import install_problem_handlers, problem_response, send_problem

OPEN_PATHS = frozenset({"/health", "/prometheus/targets"})
"""What is answered without a token; see the module's docstring."""

WaitS = Annotated[
    float,
    Query(alias="wait", ge=0, le=MAX_WAIT_S, allow_inf_nan=False, description="Seconds to wait for the change to end."),
]
FrontierRows = Callable[[], list[dict[str, Any]]]
CascadeRows = Callable[[Sequence[Mapping[str, Any]]], list[dict[str, Any]]]


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
    cascades: CascadeRows,
    scorers: Collection[str],
    usual: Mapping[str, Any] = MappingProxyType({}),
) -> FastAPI:
    """Return the admin application. It finds its own prefix in the request's ``root_path``, as a mount sets it.

    Args:
        controller_provider: gives the started controller; called for each request.
        admin_token: what a client must send as ``Authorization: Bearer``; never empty.
        frontier: rows of ``GET /frontier``; may read files, is called in a thread.
        cascades: rows of the cascades among them; likewise.
        scorers: names that a change may ask for.
        usual: what a change is taken to ask for where it does not say: the scorer, pattern, precision, recovery and
            rounds of the ladder; the last two belong to the pattern, and one that names another pattern says its own,
            as one that names other structures does its rounds.
    """
    if not admin_token:
        raise ValueError("the admin token must not be empty")
    api = FastAPI(title="SparseDial admin", description="Turn sparsity while the service runs.")
    api.include_router(_change_routes(controller_provider, scorers, usual))
    api.include_router(_reading_routes(controller_provider, frontier, cascades))
    api.include_router(plan_routes(controller_provider, frontier, scorers, usual))
    api.include_router(event_routes(lambda: controller_provider().view.log))
    api.add_exception_handler(PruningError, _store_unreadable)
    install_problem_handlers(api)
    api.add_middleware(_BearerToken, token=admin_token)
    api.add_middleware(AnswerHeaders, variant=lambda: _committed_headers(controller_provider))
    return api


def _committed_headers(controller: Callable[[], VariantController]) -> dict[str, str]:
    try:
        generation, committed = controller().view.served()
    except NotReady:  # nothing is committed as far as this process knows
        return {}
    return variant_headers(generation, committed.variant_id, committed.achieved_sparsity)


def _change_routes(
    controller: Callable[[], VariantController], scorers: Collection[str], usual: Mapping[str, Any]
) -> APIRouter:
    router = APIRouter(tags=["change"])

    @router.put(
        "/sparsity", openapi_extra=change_schema(scorers, usual), responses={202: {"description": "It is running."}}
    )
    async def put_sparsity(request: Request, wait: WaitS = 0.0) -> Response:
        """Serve another variant. The same wish twice is one change; 200 once committed, 202 while it runs."""
        expected = expected_generation(request.headers.get("if-match"))
        body = await read_json(request, MAX_BODY_BYTES)
        canary = canary_fraction(body)
        spec = parse_spec(without_canary(body), scorers, usual)
        return await _answer(request, await controller().request_change(spec, expected, canary), wait)

    @router.post("/rollback", responses={202: {"description": "It is running."}})
    async def post_rollback(request: Request, wait: WaitS = 0.0) -> Response:
        """Take back the change that runs, or serve the previous variant again if none does."""
        expected = expected_generation(request.headers.get("if-match"))
        operation = await controller().request_rollback(expected)
        if operation.error_type is Cause.CANCELLED:
            return _document(request, operation)
        return await _answer(request, operation, wait)

    @router.get("/policy")
    async def get_policy() -> Response:
        """Return what the service may do by itself."""
        return _policy(controller().view.policy())

    @router.put("/policy", openapi_extra=_policy_schema())
    async def put_policy(request: Request) -> Response:
        """Set some members of the policy; the others stay. What was set outlives a restart."""
        expected = expected_policy(request.headers.get("if-match"))
        return _policy(await controller().change_policy(await read_json(request, MAX_BODY_BYTES), expected))

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


def _reading_routes(
    controller: Callable[[], VariantController], frontier: FrontierRows, cascades: CascadeRows
) -> APIRouter:
    router = APIRouter(tags=["read"])

    @router.get("/sparsity")
    async def get_sparsity() -> Response:
        """Return what is served, what it is worth, and who serves it."""
        status = controller().view.status()
        return JSONResponse(status, headers={"etag": f'"{status["generation"]}"'})

    @router.get("/variants")
    async def get_variants() -> dict[str, Any]:
        """Return the manifest of every variant in the store."""
        manifests = await asyncio.to_thread(controller().view.variants)
        return {"variants": [manifest.as_dict() for manifest in manifests]}

    @router.get("/frontier")
    async def get_frontier() -> dict[str, Any]:
        """Return accuracy against measured cost, level by level, and what live traffic says of each."""
        rows = await asyncio.to_thread(frontier)
        found = await asyncio.to_thread(cascades, rows)
        online = controller().view.online
        return {
            "levels": [row | {"online": online(row["variant"])} for row in rows],
            "cascades": [row | {"online": online(row["cascade"])} for row in found],
        }

    @router.get("/prometheus/targets")
    async def get_targets() -> list[dict[str, Any]]:
        """Return every metrics page, in the shape of Prometheus HTTP service discovery. No token is asked for."""
        return controller().view.targets()

    @router.get("/health")
    async def get_health() -> dict[str, str]:
        """Tell that the controller works. No token is asked for."""
        if not controller().healthy():
            raise NotReady("The controller is not running.", retry_after_s=1)
        return {"status": "ok"}

    return router


def _policy(policy: Policy) -> Response:
    return JSONResponse(policy.as_dict(), headers={"etag": f'"{policy.etag}"'})


def _policy_schema() -> dict[str, Any]:
    """Return the OpenAPI words for a policy, any part of one."""
    schema = {"type": "object", "properties": {name: {} for name in MEMBERS}, "additionalProperties": False}
    example = {"slo_p99_ms": 50, "max_sparsity": 0.7, "mode": "auto"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema, "example": example}}}}


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
