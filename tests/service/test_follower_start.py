import asyncio

import pytest

from service.errors import NotReady
from tests.service.control_parts import until
from tests.service.follower_parts import make_parts


async def test_starting_waits_for_the_committed_variant() -> None:
    parts = make_parts()
    parts.holder.gate.clear()
    parts.link.wish(generation=3, variant_id="more")
    starting = asyncio.create_task(parts.follower.start(60.0))
    await until(lambda: parts.holder.log == ["stage more"])
    assert not starting.done()
    parts.holder.gate.set()
    assert await starting
    assert parts.holder.generation == 3
    await parts.follower.stop()


async def test_starting_without_a_controller_does_not_wait_for_it() -> None:
    parts = make_parts()
    parts.link.down = True
    assert not await parts.follower.start(60.0, patience_s=0.05)
    assert parts.follower.healthy()
    parts.link.down = False
    parts.link.wish(generation=2, variant_id="half")
    await until(lambda: parts.holder.generation == 2)
    await parts.follower.stop()


async def test_starting_fails_where_the_wanted_generation_is_not_reached_in_time() -> None:
    parts = make_parts()
    parts.holder.broken["more"] = RuntimeError()
    parts.link.wish(generation=3, variant_id="more")
    with pytest.raises(NotReady, match="r1"):
        await parts.follower.start(0.05)
    assert not parts.follower.healthy()
