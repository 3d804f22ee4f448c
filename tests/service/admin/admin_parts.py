"""The admin routes over a controller, and what a refusal of theirs must look like."""

from dataclasses import dataclass
from typing import Any

import httpx
from fastapi import FastAPI

from service.admin import build_admin_api
from tests.service.control_parts import Control, ModelReplica

TOKEN = "s3cret-tökèn"
AUTH = {b"authorization": b"Bearer " + TOKEN.encode()}
LEVELS = [{"variant": "half", "requested_sparsity": 0.5, "accuracy": 0.9}]
JSON = {"content-type": "application/json"}


@dataclass
class Admin:
    control: Control
    client: httpx.AsyncClient
    replica: ModelReplica

    async def put(self, body: Any, **params: Any) -> httpx.Response:
        return await self.client.put("/admin/sparsity", json=body, params=params)


def mounted(control: Control) -> FastAPI:
    """The admin application under ``/admin``, as Serve mounts it."""
    outer = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    outer.mount(
        "/admin",
        build_admin_api(
            lambda: control.controller,
            TOKEN,
            frontier=lambda: LEVELS,
            cascades=lambda levels: [{"cascade": "c1", "level": levels[0]["variant"]}],
            scorers=("taylor", "fisher", "magnitude"),
        ),
    )
    return outer


def is_problem(answer: httpx.Response, status: int, error_type: str) -> bool:
    body = answer.json()
    return (
        answer.headers["content-type"] == "application/problem+json"
        and (answer.status_code, body["status"], body["error_type"]) == (status, status, error_type)
        and body["error"] == body["detail"]
    )
