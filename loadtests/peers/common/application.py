"""The one route of the servers built on FastAPI, and how they are run."""

import os
from collections.abc import Awaitable, Callable

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

Answers = list[dict[str, str | float]]


class Request(BaseModel):
    """Texts to classify."""

    texts: list[str]


def serve(classify: Callable[[list[str]], Awaitable[Answers]]) -> None:
    """Answer ``POST /classify`` on the port that the environment names, until told to stop."""
    app = FastAPI()

    @app.post("/classify")
    async def route(request: Request) -> Answers:
        return await classify(request.texts)

    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PEER_PORT"]), log_level="warning", access_log=False)
