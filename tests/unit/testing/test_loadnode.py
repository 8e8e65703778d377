"""The load program's node against the real front of the control server, whose domain is scripted."""

from __future__ import annotations

import asyncio
import os
from ipaddress import ip_address
from typing import Any

import pytest

from buri.control.mapper import encode
from buri.control.noisefront.listener import NoiseFront
from buri.control.noisefront.machineroutes import MachineRoutes
from buri.control.noisefront.pages import Pages
from buri.core.addresses import AddrPort
from buri.core.errors import BuriError, RefusedError
from buri.core.keys import MachinePrivate
from buri.testing.loadnode import Frames, LoadNode, Server
from buri.testing.nodebench import ScriptedControl, Ticker, first_message, peer
from buri.wire.tailcfg.register import RegisterResponse

KEY = MachinePrivate.from_entropy(b"c" * 32)


def shown(number: int) -> dict[str, Any]:
    """A peer with its members in the server's order."""
    return {"ID": number, "StableID": f"n{number}", **peer(number)}


class World:
    """A scripted server and one load node; every map message ticks."""

    def __init__(self) -> None:
        self.ticker = Ticker()
        self.control = ScriptedControl(self.ticker)
        self.control.first = lambda request: first_message(request) | {"Peers": [shown(2)]}
        pages = Pages(KEY.public(), "http://127.0.0.1", tls=False)
        self.front = NoiseFront(KEY, pages.handle, MachineRoutes(self.control).handle)

    async def __aenter__(self) -> World:
        bound = await self.front.listen_tcp(AddrPort(ip_address("127.0.0.1"), 0))
        self.node = LoadNode(1, Server("127.0.0.1", bound.port, KEY.public()), os.urandom, Frames())
        self.node.on_news = lambda _: self.ticker.tick()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.node.close()
        await self.ticker.until("the server to notice", lambda: not self.control.streams)
        await self.front.close()

    async def listen(self) -> None:
        await self.node.connect()
        await self.node.register("tskey-auth-x")
        self.node.open_map()
        await self.ticker.until("the first map", lambda: self.node.messages)


async def counting() -> None:
    async with World() as world:
        await world.listen()
        assert world.node.peers == {1, 2}
        world.node.watch = b"198.51.100.7:7"
        world.control.streams[0].say({"PeersChanged": [shown(3)]})
        await world.ticker.until("a join", lambda: 3 in world.node.peers)
        assert not world.node.seen_s
        world.control.streams[0].say({"PeersChangedPatch": [{"NodeID": 2, "Endpoints": ["198.51.100.7:7"]}]})
        await world.ticker.until("a change", lambda: world.node.seen_s)
        await world.node.tell_endpoint(AddrPort(ip_address("198.51.100.8"), 8))
        assert world.control.updates[0].endpoints == ["198.51.100.8:8"]


async def coming_back() -> None:
    async with World() as world:
        await world.listen()
        world.node.close()
        await world.ticker.until("the server to notice", lambda: not world.control.streams)
        await world.node.connect()
        assert not world.node.peers
        world.node.open_map()
        await world.ticker.until("the map again", lambda: world.node.peers == {1, 2})


async def refused() -> None:
    async with World() as world:
        world.control.answer = lambda _: RegisterResponse(error="no such key")
        await world.node.connect()
        with pytest.raises(RefusedError, match="no such key"):
            await world.node.register("tskey-auth-y")


async def stranger() -> None:
    async with World() as world:
        other = MachinePrivate.from_entropy(b"o" * 32).public()
        node = LoadNode(2, world.node._server._replace(key=other), os.urandom, Frames())
        with pytest.raises(BuriError):
            await node.connect()
        assert node.lost


def test_it_counts_the_nodes_it_is_shown_and_hears_what_it_waits_for() -> None:
    asyncio.run(counting())


def test_it_comes_back_with_nothing_in_its_head() -> None:
    asyncio.run(coming_back())


def test_a_refused_key_is_told_with_the_servers_words() -> None:
    asyncio.run(refused())


def test_a_server_with_another_key_is_not_talked_to() -> None:
    asyncio.run(stranger())


def test_a_frame_made_for_all_is_decoded_once() -> None:
    frames = Frames()
    shared, tail = encode.squeeze(b'{"Peers":[{"ID":7,"StableID":"n7"}'), encode.squeeze(b"]}")
    first, second = frames.decode(shared + tail), frames.decode(shared + tail)
    assert [text.nodes for text in first] == [(7,), ()]
    assert first[0] is second[0]
