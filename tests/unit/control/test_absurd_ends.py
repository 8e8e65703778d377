"""An administrator's slip of the finger: an end past all years is refused, and harms no map and no list."""

from __future__ import annotations

import asyncio

import pytest

from buri.core.errors import ConfigError
from buri.testing.controlworld import World

ABSURD_S = (1e12, 1e15, 1e300)


def test_a_key_s_end_past_the_year_9999_is_refused() -> None:
    async def scenario() -> None:
        world = World()
        machine, watcher = world.machine(), world.machine("watcher")
        key = await world.auth_key()
        await machine.join(key)
        await watcher.join(key)
        before = world.admin.node("box")
        for by_s in ABSURD_S:
            with pytest.raises(ConfigError, match="past the year 9999"):
                await world.admin.expire_node("box", world.admin.now_s() + by_s)
            with pytest.raises(ConfigError, match="past the year 9999"):
                await world.admin.extend_expiry("box", by_s)
            with pytest.raises(ConfigError, match="past the year 9999"):
                await world.admin.create_auth_key(user="alice", lifetime_s=by_s)
        assert world.admin.node("box") == before
        netmap = await watcher.open()
        await netmap.read_all()

    asyncio.run(scenario())
