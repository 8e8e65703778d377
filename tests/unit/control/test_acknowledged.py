"""Nothing is acknowledged that is not on the disk: registrations over real Noise on a store that fails."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path

from buri.control.clock import SystemClock
from buri.control.coordinator import Coordinator
from buri.control.noisefront.listener import NoiseFront
from buri.control.noisefront.machineroutes import MachineRoutes
from buri.control.noisefront.pages import Pages
from buri.control.settings import Settings
from buri.control.snapshot import Snapshot
from buri.control.store.database import FILE_NAME, Database
from buri.control.store.writer import Writer
from buri.core.addresses import AddrPort
from buri.core.errors import RefusedError
from buri.core.keys import MachinePrivate
from buri.testing.controlworld import derp_map
from buri.testing.loadnode import Frames, LoadNode, Server

KEY = MachinePrivate.from_entropy(b"k" * 32)
SETTINGS = Settings(url="http://localhost:8080")


class FailingDatabase(Database):
    """A database whose disk can be made small, and which waits for nobody."""

    def set_pages(self, pages: int) -> None:
        for pragma in (f"max_page_count={pages}", "busy_timeout=0"):
            self._connection.exec_driver_sql(f"PRAGMA {pragma}").close()
        self._connection.rollback()


class Served:
    """A control server on such a database, and an auth key for it."""

    def __init__(self, server: Server, database: FailingDatabase, auth_key: str) -> None:
        self.server = server
        self.database = database
        self.auth_key = auth_key
        self.accepted: set[str] = set()
        self.refused: set[str] = set()

    async def join(self, number: int) -> str:
        """Register a new machine; returns its node key. Every answer is noted."""
        node = LoadNode(number, self.server, os.urandom, Frames())
        await node.connect()
        try:
            await node.register(self.auth_key)
            self.accepted.add(str(node.key))
        except RefusedError:
            self.refused.add(str(node.key))
        finally:
            node.close()
        return str(node.key)


@contextlib.asynccontextmanager
async def served(directory: Path) -> AsyncIterator[Served]:
    database = FailingDatabase(directory / FILE_NAME)
    loaded = database.load()
    snapshot = Snapshot.build(
        tailnet_id=1,
        base_domain=SETTINGS.base_domain,
        nodes=loaded.nodes,
        users=loaded.users,
        auth_keys=loaded.auth_keys,
        counters=loaded.counters,
        derp_map=derp_map(900),
    )
    writer = Writer(database, asyncio.get_running_loop())
    coordinator = Coordinator(snapshot, writer, SETTINGS, clock=SystemClock(), entropy=os.urandom)
    await coordinator.admin.create_user("alice")
    _, text = await coordinator.admin.create_auth_key(user="alice", reusable=True, lifetime_s=3600)
    pages = Pages(KEY.public(), SETTINGS.url, tls=False)
    front = NoiseFront(KEY, pages.handle, MachineRoutes(coordinator).handle)
    bound = await front.listen_tcp(AddrPort(ip_address("127.0.0.1"), 0))
    try:
        yield Served(Server("127.0.0.1", bound.port, KEY.public()), database, text)
    finally:
        await front.close()
        await coordinator.close()


def stored(directory: Path) -> tuple[set[str], list[str]]:
    """The node keys and addresses that a new start would find."""
    database = Database(directory / FILE_NAME)
    try:
        nodes = database.load().nodes
    finally:
        database.close()
    return {str(node.key) for node in nodes}, [address for node in nodes for address in node.addresses]


def test_a_full_disk_acknowledges_nothing_and_gives_no_address_twice(tmp_path: Path) -> None:
    async def scenario() -> Served:
        async with served(tmp_path) as world:
            await world.join(0)
            world.database.set_pages(1)  # SQLite makes it as many as there are: not one more
            for batch in range(8):
                await asyncio.gather(*(world.join(batch * 10 + number) for number in range(1, 11)))
            assert world.refused, "the disk was not full"
            world.database.set_pages(1 << 20)
            last = await world.join(999)
            assert last in world.accepted, "it goes on once there is room"
        return world

    world = asyncio.run(scenario())
    keys, addresses = stored(tmp_path)
    assert keys == world.accepted
    assert len(addresses) == len(set(addresses)) == 2 * len(world.accepted)


def test_a_locked_database_acknowledges_nothing(tmp_path: Path) -> None:
    async def scenario() -> Served:
        async with served(tmp_path) as world:
            await world.join(0)
            world.database.set_pages(1 << 20)
            holder = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)
            holder.execute("BEGIN IMMEDIATE")
            await asyncio.gather(*(world.join(number) for number in range(1, 6)))
            assert len(world.refused) == 5
            holder.execute("ROLLBACK")
            holder.close()
            await asyncio.gather(*(world.join(number) for number in range(10, 15)))
            assert len(world.accepted) == 6
        return world

    world = asyncio.run(scenario())
    assert stored(tmp_path)[0] == world.accepted
