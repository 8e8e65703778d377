"""The network monitor in a network namespace of its own."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Awaitable, Callable

import pytest

from buri.node.netmon.linux import NetworkMonitor, NetworkState
from buri.testing.namespace import own_network

pytestmark = [pytest.mark.root, pytest.mark.slow]


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def watch(story: Callable[[asyncio.Queue[NetworkState], NetworkMonitor], Awaitable[None]]) -> None:
    async def run() -> None:
        seen: asyncio.Queue[NetworkState] = asyncio.Queue()
        monitor = NetworkMonitor("buri7", lambda old, new: seen.put_nowait(new))
        try:
            async with asyncio.timeout(10):
                await story(seen, monitor)
        finally:
            monitor.close()

    with own_network():
        ip("link", "set", "lo", "up")
        ip("link", "add", "eth7", "type", "veth", "peer", "name", "far7")
        ip("link", "set", "far7", "up")
        ip("link", "set", "eth7", "up")
        asyncio.run(run())


def test_an_address_and_a_default_route_are_changes() -> None:
    async def story(seen: asyncio.Queue[NetworkState], monitor: NetworkMonitor) -> None:
        ip("address", "add", "192.0.2.1/24", "dev", "eth7")
        while "192.0.2.1" not in map(str, monitor.state.addresses):
            await seen.get()
        ip("route", "add", "default", "via", "192.0.2.254")
        while not monitor.state.defaults:
            await seen.get()
        assert monitor.state.defaults[0][0] == "0.0.0.0/0"
        ip("link", "set", "eth7", "down")
        while "192.0.2.1" in map(str, monitor.state.addresses):
            await seen.get()

    watch(story)


def test_the_tunnel_itself_and_tailnet_addresses_never_count() -> None:
    async def story(seen: asyncio.Queue[NetworkState], monitor: NetworkMonitor) -> None:
        ip("tuntap", "add", "dev", "buri7", "mode", "tun")
        ip("link", "set", "buri7", "up")
        ip("address", "add", "10.9.9.9/32", "dev", "buri7")
        ip("address", "add", "100.64.0.9/32", "dev", "eth7")
        ip("address", "add", "192.0.2.1/24", "dev", "eth7")
        while "192.0.2.1" not in map(str, monitor.state.addresses):
            await seen.get()
        found = {str(address) for address in monitor.state.addresses if address.version == 4}
        assert found == {"127.0.0.1", "192.0.2.1"}

    watch(story)


def test_ipv6_counts_once_it_leads_somewhere() -> None:
    async def story(seen: asyncio.Queue[NetworkState], monitor: NetworkMonitor) -> None:
        assert not monitor.state.has_ipv6
        ip("-6", "address", "add", "2001:db8::1/64", "dev", "eth7", "nodad")
        while not monitor.state.has_ipv6:
            await seen.get()

    watch(story)


def test_a_rule_that_another_program_took_away_wakes_the_monitor() -> None:
    async def story(seen: asyncio.Queue[NetworkState], monitor: NetworkMonitor) -> None:
        ip("address", "add", "192.0.2.1/24", "dev", "eth7")
        ip("rule", "add", "priority", "5287", "table", "5282")
        state = await seen.get()
        while not seen.empty():
            state = seen.get_nowait()
        ip("rule", "del", "priority", "5287")
        assert await seen.get() == state

    watch(story)
