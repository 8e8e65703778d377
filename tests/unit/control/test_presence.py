"""What time does: online and offline, ephemeral ends, expiry, the relay's keys."""

from __future__ import annotations

import asyncio

from buri.control.edit import PutNode
from buri.control.presence import CHECKPOINT_S, OFFLINE_GRACE_S, RETRY_S
from buri.core.errors import SystemFault
from buri.core.keys import NodePublic
from buri.testing.controlworld import FakeCommitLog, World


def test_a_reconnect_within_the_grace_is_no_news() -> None:
    async def scenario() -> None:
        world = World()
        key = await world.auth_key()
        node, watcher = world.machine("node"), world.machine("watcher")
        await node.join(key)
        await watcher.join(key)
        watching = await watcher.open()
        stream = await node.open()
        await watching.read_all()
        assert watching.peers[1]["Online"]
        stream.stream.close()
        world.clock.advance(OFFLINE_GRACE_S - 1)
        await node.open()
        world.clock.advance(OFFLINE_GRACE_S * 2)
        assert await watching.read_all() == 0

    asyncio.run(scenario())


def test_a_node_is_offline_after_the_grace_and_was_last_seen_then() -> None:
    async def scenario() -> None:
        world = World()
        key = await world.auth_key()
        node, watcher = world.machine("node"), world.machine("watcher")
        await node.join(key)
        await watcher.join(key)
        watching = await watcher.open()
        (await node.open()).stream.close()
        await watching.read_all()
        world.clock.advance(OFFLINE_GRACE_S)
        message = await watching.read()
        assert message == {"PeersChangedPatch": [{"Online": False, "LastSeen": "2027-01-15T08:00:10Z"}]}
        assert not world.admin.node("node").online

    asyncio.run(scenario())


def test_an_ephemeral_node_goes_some_time_after_it_went_offline() -> None:
    async def scenario() -> None:
        world = World(ephemeral_timeout_s=60.0)
        key = await world.auth_key(ephemeral=True)
        node, silent = world.machine("node"), world.machine("silent")
        await node.join(key)
        await silent.join(key)
        stream = await node.open()
        world.clock.advance(61)
        assert [record.name for record in world.admin.snapshot.nodes.values()] == ["node"]
        stream.stream.close()
        world.clock.advance(OFFLINE_GRACE_S + 59)
        assert len(world.admin.snapshot.nodes) == 1
        world.clock.advance(1)
        assert len(world.admin.snapshot.nodes) == 0

    asyncio.run(scenario())


def test_an_ephemeral_node_of_before_the_start_gets_its_time_again() -> None:
    async def scenario() -> None:
        old = World(ephemeral_timeout_s=60.0)
        await old.machine().join(await old.auth_key(ephemeral=True))
        world = World(snapshot=old.admin.snapshot, ephemeral_timeout_s=60.0)
        world.clock.advance(59)
        assert len(world.admin.snapshot.nodes) == 1
        world.clock.advance(1)
        assert len(world.admin.snapshot.nodes) == 0

    asyncio.run(scenario())


def test_peers_learn_when_a_key_runs_out_by_itself() -> None:
    async def scenario() -> None:
        world = World(key_expiry_s=7200.0)
        key = await world.auth_key()
        node = world.machine("node")
        await node.join(key)
        world.clock.advance(60)
        watcher = world.machine("watcher")
        await watcher.join(key)
        watching = await watcher.open()
        await watching.read_all()
        world.clock.advance(7200 - 60)
        message = await watching.read()
        assert [peer["Expired"] for peer in message["PeersChanged"]] == [True]
        world.clock.advance(60)
        assert (await watching.read())["Node"]["Expired"]

    asyncio.run(scenario())


def test_the_relay_admits_good_keys_alone() -> None:
    async def scenario() -> None:
        world = World(key_expiry_s=3600.0)
        admitted: list[frozenset[NodePublic]] = []
        world.coordinator.on_relay_keys(admitted.append)
        assert admitted == [frozenset()]
        key = await world.auth_key(lifetime_s=0)
        machine = world.machine()
        await machine.join(key)
        world.clock.advance(0)
        assert admitted[-1] == {machine.key}
        old = machine.key
        machine.new_key()
        await machine.join(key)
        world.clock.advance(0)
        assert admitted[-1] == {machine.key}
        assert old not in admitted[-1]
        count = len(admitted)
        await machine.update(["192.0.2.1:1"])
        world.clock.advance(0)
        assert len(admitted) == count
        world.clock.advance(3601)
        assert admitted[-1] == frozenset()

    asyncio.run(scenario())


def test_a_store_that_fails_for_a_while_does_not_keep_a_node_online() -> None:
    async def scenario() -> None:
        journal = FakeCommitLog()
        world = World(journal=journal)
        node = world.machine("node")
        await node.join(await world.auth_key())
        netmap = await node.open()
        netmap.stream.close()
        journal.fail_with = SystemFault("The disk is full.")
        world.clock.advance(OFFLINE_GRACE_S)
        await asyncio.sleep(0)
        assert world.admin.node("node").online
        journal.fail_with = None
        world.clock.advance(RETRY_S)
        assert not world.admin.node("node").online

    asyncio.run(scenario())


def test_when_online_nodes_were_seen_is_kept_now_and_then_and_at_the_end() -> None:
    async def scenario() -> None:
        journal = FakeCommitLog()
        world = World(journal=journal)
        key = await world.auth_key()
        here, gone = world.machine("here"), world.machine("gone")
        await here.join(key)
        await gone.join(key)
        netmap = await here.open()
        await netmap.read_all()

        def seen() -> dict[str, float]:
            nodes = (write.node for write in journal.written if isinstance(write, PutNode))
            return {node.name: node.last_seen_s for node in nodes}

        start_s = world.clock.wall_s()
        world.clock.advance(CHECKPOINT_S)
        assert seen() == {"here": start_s + CHECKPOINT_S, "gone": start_s}
        world.clock.advance(10)
        await world.coordinator.close()
        assert seen() == {"here": start_s + CHECKPOINT_S + 10, "gone": start_s}

    asyncio.run(scenario())
