"""The inference routes, and what stands around every one of them."""

import asyncio
import hmac
from dataclasses import replace
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi.security.utils import get_authorization_scheme_param
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from pydantic import BaseModel
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.answer_headers import AnswerHeaders
from service.bodies import read_json
from service.deadlines import HEADER, LONGEST_MS, Deadline, deadline_of
from service.direct_routes import DirectRoutes, Endpoint
from service.errors import DeadlineExceeded, ServiceError, Unauthorized
from service.feedback import FeedbackDesk, FeedbackRequest
from service.info import ModelCard, info
from service.levels import CASCADE_HEADER, QUALITY_HEADER, SPARSITY_HEADER, Quality, wish_of
from service.problems import install_problem_handlers, send_problem
from service.runtime import InferenceRuntime
from service.schemas import HubRequest, LabelScore, TeiRequest, parse
from service.settings import Settings

TRACKED_ROUTES = {("POST", "/"): "/", ("POST", "/predict"): "/predict"}
"""Routes that count as requests in the metrics; their label."""


def build_inference_api(
    runtime: InferenceRuntime,
    feedback: FeedbackDesk,
    settings: Settings,
    card: ModelCard,
    api_key: str | None = None,
) -> FastAPI:
    """Return the application of one replica.

    Args:
        runtime: answers the requests.
        feedback: takes true labels that come back.
        settings: limits on bodies.
        card: what ``/info`` says of the model.
        api_key: bearer token of the inference routes; ``None`` asks for none. Health, metrics and docs are open.
    """
    api = FastAPI(title="SparseDial", version=card.version, description="A BERT service whose cost is a dial.")
    key = None if api_key is None else _BearerKey(api_key)
    inference = _inference_routes(runtime, feedback, settings, card)
    api.add_middleware(DirectRoutes, endpoints=_tracked_endpoints(inference), check=key.check if key else None)
    install_problem_handlers(api)
    api.add_middleware(_Tracked, runtime=runtime)
    api.add_middleware(AnswerHeaders, variant=runtime.variant_headers)
    api.include_router(inference, dependencies=[Depends(key)] if key else [])
    api.include_router(_open_routes(runtime))
    return api


def _tracked_endpoints(routes: APIRouter) -> dict[tuple[str, str], Endpoint]:
    """Return the functions that FastAPI describes under the tracked routes."""
    functions = {
        (method, route.path): route.endpoint
        for route in routes.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }
    return {route: functions[route] for route in TRACKED_ROUTES}


def _inference_routes(
    runtime: InferenceRuntime, feedback: FeedbackDesk, settings: Settings, card: ModelCard
) -> APIRouter:
    """Return the routes that the API key guards."""
    routes = APIRouter(tags=["inference"])

    async def classify(request: Request, schema: type[HubRequest] | type[TeiRequest]) -> Response:
        deadline = deadline_of(request.headers, request.state.arrived_at, settings.request_timeout_s)
        body = await _read_in_time(request, settings, deadline)
        query = parse(schema, body).query()
        query = replace(query, wish=wish_of(request.headers, query.wish))
        answer = await runtime.classify(query, deadline, request.state.request_id)
        return Response(answer.body, headers=answer.headers, media_type="application/json")

    @routes.post("/", responses=_answers(list[list[LabelScore]]), openapi_extra=_body(HubRequest))
    async def classify_text(request: Request) -> Response:
        """Judge texts: the Hugging Face text-classification task. The answer is a list for each text."""
        return await classify(request, HubRequest)

    @routes.post(
        "/predict", responses=_answers(list[LabelScore] | list[list[LabelScore]]), openapi_extra=_body(TeiRequest)
    )
    async def predict(request: Request) -> Response:
        """Judge texts or pairs: the text-embeddings-inference shape. The answer to a single input is one flat list."""
        return await classify(request, TeiRequest)

    @routes.post("/v1/feedback", openapi_extra=_body(FeedbackRequest, level=False))
    async def give_feedback(request: Request) -> Response:
        """Tell the true label of an answer. The same label twice counts once, another one takes its place."""
        deadline = deadline_of(request.headers, request.state.arrived_at, settings.request_timeout_s)
        given = parse(FeedbackRequest, await _read_in_time(request, settings, deadline))
        return _json(await feedback.take(given.request_id, given.labels(runtime.dial.live.engine.labels)))

    @routes.get("/info")
    async def show_info() -> Response:
        """Say which model and variant answer, and the limits."""
        return _json(info(card, runtime.dial.live, runtime.dial.levels, settings))

    return routes


def _open_routes(runtime: InferenceRuntime) -> APIRouter:
    """Return the routes that need no key."""
    routes = APIRouter(tags=["operations"])

    @routes.get("/health", responses={503: {"description": "Starting, or draining before a stop."}})
    async def health() -> Response:
        """Answer 200 while requests are taken."""
        runtime.check_ready()
        return Response()

    @routes.get("/metrics")
    async def metrics() -> Response:
        """Return the Prometheus pages of all live replicas as one, each sample with its ``replica``."""
        return Response(await runtime.metrics_page(), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return routes


async def _read_in_time(request: Request, settings: Settings, deadline: Deadline) -> Any:
    """Return the JSON of the body, which must arrive within the request's time limit."""
    try:
        async with asyncio.timeout_at(deadline.at):
            return await read_json(request, settings.max_body_bytes)
    except TimeoutError:
        raise DeadlineExceeded(f"The body did not arrive within {deadline}; send it faster, or less at once.") from None


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")


def _answers(model: Any) -> dict[int | str, dict[str, Any]]:
    """Return what the OpenAPI page says of the answers of a classifying route."""
    return {
        200: {"model": model, "description": "Labels with their scores, best first."},
        413: {"description": "The body, a text or the number of texts is beyond a limit."},
        422: {"description": "Well-formed, but not a request that this service accepts."},
        429: {"description": "The queue is full; Retry-After says when to come back."},
        503: {"description": "Starting, or draining before a stop."},
        504: {"description": "No answer within the time limit, or within the request's own deadline."},
    }


def _body(model: type[BaseModel], *, level: bool = True) -> dict[str, Any]:
    """Return what the OpenAPI page says of a body that the route reads by itself."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})
    deadline = {
        "name": HEADER,
        "in": "header",
        "description": "Milliseconds after which nobody waits for the answer any more; it is 504 then.",
        "schema": {"type": "integer", "minimum": 1, "maximum": LONGEST_MS},
    }
    levels = [
        {
            "name": SPARSITY_HEADER,
            "in": "header",
            "description": "Sparsity of the loaded level that shall answer, in place of the default one.",
            "schema": {"type": "number", "minimum": 0, "exclusiveMaximum": 1},
        },
        {
            "name": QUALITY_HEADER,
            "in": "header",
            "description": "The same by quality: the densest level, the default one, or the sparsest allowed.",
            "schema": {"enum": [quality.value for quality in Quality]},
        },
        {
            "name": CASCADE_HEADER,
            "in": "header",
            "description": "Whether the dense model answers the texts that the level is not sure of.",
            "schema": {"type": "boolean"},
        },
    ]
    return {
        "parameters": [deadline, *levels] if level else [deadline],
        "requestBody": {"required": True, "content": {"application/json": {"schema": _inlined(schema, definitions)}}},
    }


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """Return ``schema`` with its references replaced by what they stand for."""
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        target = definitions[schema["$ref"].rpartition("/")[2]]
        schema = {**target, **{name: value for name, value in schema.items() if name != "$ref"}}
    return {name: _inlined(value, definitions) for name, value in schema.items()}


class _BearerKey:
    """Lets a request pass that carries the key, compared in constant time."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()

    async def __call__(
        self,
        request: Request,
        described: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))],
    ) -> None:
        """Check it as a dependency of FastAPI, whose description then says that a key is needed."""
        self.check(request)

    def check(self, request: Request) -> None:
        """Return if the request carries the key.

        Raises:
            Unauthorized: it does not.
        """
        scheme, given = get_authorization_scheme_param(request.headers.get("authorization"))
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.encode("latin-1"), self._key):
            raise Unauthorized("This route needs the API key: send 'Authorization: Bearer <key>'.")


class _Tracked:
    """Follows inference requests to the end of their answers.

    Those that find no room are refused here, before anything is read of them: a refusal must cost far less than an
    answer, or refusing is what an overloaded service spends its time on.
    """

    def __init__(self, app: ASGIApp, runtime: InferenceRuntime) -> None:
        self._app = app
        self._runtime = runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = TRACKED_ROUTES.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if route is None:
            await self._app(scope, receive, send)
            return
        with self._runtime.track(route) as exchange:

            async def watched_send(message: Message) -> None:
                if message["type"] == "http.response.start":
                    exchange.status = message["status"]
                await send(message)

            try:
                self._runtime.check_room()
            except ServiceError as error:
                await send_problem(error, scope, receive, watched_send)
                return
            await self._app(scope, receive, watched_send)
