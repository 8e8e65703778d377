"""Open polls: who is woken, who ends, who is kept alive."""

from __future__ import annotations

import asyncio

import pytest

from buri.control.mapper.streams import KEEPALIVE_JITTER_S, KEEPALIVE_S
from buri.core.errors import RefusedError
from buri.testing.controlworld import Machine, Netmap, World, derp_map


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Waiting:
    """A node whose stream is being waited on."""

    def __init__(self, machine: Machine, netmap: Netmap) -> None:
        self.machine = machine
        self.netmap = netmap
        self.task = asyncio.ensure_future(netmap.read())

    @property
    def woken(self) -> bool:
        return self.task.done()


async def waiting_tailnet(world: World, count: int) -> list[Waiting]:
    key = await world.auth_key()
    machines = [world.machine() for _ in range(count)]
    for machine in machines:
        await machine.join(key)
    netmaps = [await machine.open() for machine in machines]
    for netmap in netmaps:
        await netmap.read_all()
    nodes = [Waiting(machine, netmap) for machine, netmap in zip(machines, netmaps, strict=True)]
    await settle()
    assert not any(node.woken for node in nodes)
    return nodes


def test_a_node_is_not_woken_by_what_it_said_itself() -> None:
    async def scenario() -> None:
        nodes = await waiting_tailnet(World(), 3)
        await nodes[0].machine.update(["192.0.2.1:5"], derp=900)
        await settle()
        assert [node.woken for node in nodes] == [False, True, True]

    asyncio.run(scenario())


def test_a_node_without_standing_is_not_woken_by_others() -> None:
    async def scenario() -> None:
        world = World()
        nodes = await waiting_tailnet(world, 3)
        await world.admin.expire_node(str(nodes[2].machine.node_id()), None)
        await settle()
        assert all(node.woken for node in nodes)
        told = nodes[2].task.result()
        assert told["Node"]["Expired"]
        assert not told["Peers"]
        again = [Waiting(node.machine, node.netmap) for node in nodes]
        await nodes[0].machine.update(["192.0.2.1:5"])
        await settle()
        assert [node.woken for node in again] == [False, True, False]
        assert nodes[0].netmap.peers[nodes[2].machine.node_id()]["Expired"]

    asyncio.run(scenario())


def test_a_report_without_news_wakes_nobody() -> None:
    async def scenario() -> None:
        nodes = await waiting_tailnet(World(), 2)
        await nodes[0].machine.update([])
        await settle()
        assert not any(node.woken for node in nodes)

    asyncio.run(scenario())


def test_the_newest_stream_of_a_node_wins() -> None:
    async def scenario() -> None:
        world = World()
        (node,) = await waiting_tailnet(world, 1)
        newer = await node.machine.open()
        await settle()
        with pytest.raises(StopAsyncIteration):
            node.task.result()
        node.netmap.stream.close()
        node.netmap.stream.close()
        world.clock.advance(30)
        assert world.admin.node("box").online
        await newer.read()

    asyncio.run(scenario())


def test_a_deleted_nodes_stream_ends() -> None:
    async def scenario() -> None:
        world = World()
        nodes = await waiting_tailnet(world, 2)
        node_id = nodes[0].machine.node_id()
        await world.admin.delete_node(str(node_id))
        await settle()
        with pytest.raises(StopAsyncIteration):
            nodes[0].task.result()
        assert nodes[1].task.result() == {"PeersRemoved": [node_id]}

    asyncio.run(scenario())


def test_a_quiet_stream_is_kept_alive() -> None:
    async def scenario() -> None:
        world = World()
        (node,) = await waiting_tailnet(world, 1)
        world.clock.advance(KEEPALIVE_S - 1)
        await settle()
        assert not node.woken
        world.clock.advance(KEEPALIVE_JITTER_S + 1)
        await settle()
        assert node.task.result() == {"KeepAlive": True}

    asyncio.run(scenario())


def test_a_reader_that_fell_behind_gets_a_whole_netmap() -> None:
    async def scenario() -> None:
        world = World()
        world.coordinator.mapper.set_journal_size(10)
        nodes = await waiting_tailnet(world, 3)
        slow = nodes[0]
        slow.task.cancel()
        for port in range(1, 40):
            await nodes[1].machine.update([f"192.0.2.1:{port}"])
        message = await slow.netmap.read()
        assert len(message["Peers"]) == 2
        assert slow.netmap.peers[nodes[1].machine.node_id()]["Endpoints"] == ["192.0.2.1:39"]

    asyncio.run(scenario())


def test_a_reader_that_fell_behind_and_is_alone_now_must_begin_again() -> None:
    async def scenario() -> None:
        world = World()
        world.coordinator.mapper.set_journal_size(1)
        nodes = await waiting_tailnet(world, 3)
        nodes[0].task.cancel()
        for node in nodes[1:]:
            await world.admin.delete_node(str(node.machine.node_id()))
        with pytest.raises(StopAsyncIteration):
            await nodes[0].netmap.read()

    asyncio.run(scenario())


def test_a_new_derp_map_reaches_all() -> None:
    async def scenario() -> None:
        world = World()
        nodes = await waiting_tailnet(world, 2)
        world.coordinator.set_derp_map(derp_map(901))
        await settle()
        for node in nodes:
            assert list(node.task.result()["DERPMap"]["Regions"]) == ["901"]

    asyncio.run(scenario())


def test_a_strangers_map_request_is_refused() -> None:
    async def scenario() -> None:
        world = World()
        node, stranger = world.machine(), world.machine()
        await node.join(await world.auth_key())
        stranger.key = node.key
        with pytest.raises(RefusedError):
            await stranger.open()
        with pytest.raises(RefusedError):
            await stranger.update([])
        with pytest.raises(RefusedError):
            await world.coordinator.full_map(stranger.machine, stranger.map_request())

    asyncio.run(scenario())


def test_a_stream_does_not_take_stale_reports_but_fills_gaps() -> None:
    async def scenario() -> None:
        world = World()
        machine = world.machine()
        await machine.join(await world.auth_key())
        await machine.open()
        assert world.admin.node("box").disco == machine.disco
        await machine.update(["192.0.2.1:5"])
        request = machine.map_request(stream=True, endpoints=["192.0.2.66:6"])
        await world.coordinator.open_map(machine.machine, request)
        assert [str(endpoint) for endpoint in world.admin.node("box").endpoints] == ["192.0.2.1:5"]

    asyncio.run(scenario())
