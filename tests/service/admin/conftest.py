"""The admin routes over a running controller, for every test here."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.service.admin.admin_parts import AUTH, Admin, mounted
from tests.service.control_parts import ModelReplica, make_control, until


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Admin]:
    """The admin routes over a running controller with one replica that follows it."""
    control = make_control(tmp_path)
    await control.controller.start()
    control.clock.now += 4.0
    replica = ModelReplica(control.controller)
    following = asyncio.create_task(replica.follow())
    await until(lambda: bool(control.controller.view.status()["replicas"]))
    transport = httpx.ASGITransport(app=mounted(control))
    async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=AUTH) as client:
        yield Admin(control, client, replica)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await control.controller.stop()
