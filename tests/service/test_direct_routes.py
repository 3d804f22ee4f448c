"""The shortcut past the router answers as the router does."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI, Request, Response

from service.direct_routes import DirectRoutes
from service.errors import NotFound, Unauthorized
from service.problems import install_problem_handlers


async def echo(request: Request) -> Response:
    return Response(await request.body(), headers={"x-by": "endpoint"})


async def refuse(request: Request) -> Response:
    raise NotFound("No such thing here.")


async def fail(request: Request) -> Response:
    raise RuntimeError("a private word")


def check(request: Request) -> None:
    if "x-key" not in request.headers:
        raise Unauthorized("Send the key.")


@asynccontextmanager
async def client_of(*, shortcut: bool) -> AsyncIterator[httpx.AsyncClient]:
    api = FastAPI()
    endpoints = {"/echo": echo, "/refuse": refuse, "/fail": fail}
    if shortcut:
        api.add_middleware(
            DirectRoutes, endpoints={("POST", path): one for path, one in endpoints.items()}, check=check
        )
    install_problem_handlers(api)

    @api.get("/echo")
    async def routed() -> Response:
        return Response(b"routed")

    for path, endpoint in endpoints.items():
        api.post(path)(endpoint)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://test") as client:
        yield client


@pytest.mark.parametrize("path", ["/echo", "/refuse", "/fail"])
async def test_answers_refusals_and_failures_are_those_of_the_router(path: str) -> None:
    answers = []
    for shortcut in (False, True):
        async with client_of(shortcut=shortcut) as client:
            answers.append(await client.post(path, content=b"text", headers={"x-key": "1"}))
    routed, direct = answers
    assert (direct.status_code, direct.content) == (routed.status_code, routed.content)
    assert dict(direct.headers) == dict(routed.headers)
    assert b"private" not in direct.content


async def test_another_method_or_path_is_the_routers() -> None:
    async with client_of(shortcut=True) as client:
        assert (await client.get("/echo")).content == b"routed"
        assert (await client.delete("/echo")).status_code == 405
        assert (await client.post("/other")).status_code == 404


async def test_who_may_not_use_them_is_refused_before_they_run() -> None:
    async with client_of(shortcut=True) as client:
        answer = await client.post("/fail")
    assert answer.status_code == 401 and answer.json()["detail"] == "Send the key."
