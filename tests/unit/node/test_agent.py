"""The agent's life: joining, changing, losing the server, leaving."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from buri.core.errors import ConfigError, SystemFault
from buri.engine import port
from buri.machine.mapdelta import Netmap
from buri.node import statusview
from buri.node.agent import READ_AT_ONCE
from buri.node.notices import BrowseToURL, Failed, LoginFinished, StateChanged
from buri.node.pingback import ping_peer
from buri.node.reconciler import Choices
from buri.node.statestore import StateStore
from buri.testing.nodebench import NodeBench, first_message, peer
from buri.wire.localapi import Prefs
from buri.wire.tailcfg.base import format_time
from buri.wire.tailcfg.mapping import MapRequest, PingResponse
from buri.wire.tailcfg.register import LOGOUT_EXPIRY, RegisterRequest, RegisterResponse

Story = Callable[[NodeBench], Awaitable[None]]


def play(store: StateStore, story: Story) -> None:
    async def run() -> None:
        async with NodeBench(store) as bench:
            await story(bench)

    asyncio.run(run())


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    return StateStore(tmp_path / "burid.state")


def states(bench: NodeBench) -> list[str]:
    return [notice.state.label for notice in bench.heard(StateChanged)]


def test_a_node_that_was_never_in_needs_a_login(store: StateStore) -> None:
    async def story(bench: NodeBench) -> None:
        assert states(bench) == ["NeedsLogin"]
        with pytest.raises(ConfigError, match="No control server is set"):
            bench.agent.log_in(auth_key="x")
        assert bench.router.configs == []

    play(store, story)


def test_joining_lays_out_the_tables_and_reaches_running(store: StateStore) -> None:
    async def story(bench: NodeBench) -> None:
        await bench.join()
        assert states(bench) == ["NeedsLogin", "Starting", "Running"]
        assert bench.heard(LoginFinished)
        assert bench.control.registrations[0].auth is not None
        key = store.node_key
        assert key is not None
        assert port.SetPrivateKey(key) in bench.engine.orders
        (upsert,) = bench.engine.of(port.UpsertPeer)
        assert upsert.peer.allowed_ips == (ip_network("100.64.0.2/32"),)
        assert bench.router.configs[-1].addresses == (ip_address("100.64.0.1"),)
        assert bench.router.configs[-1].routes == (ip_network("100.64.0.2/32"),)
        assert bench.engine.of(port.SetPath)[-1].relay_region == 9
        await bench.until("the report of home", lambda: _home(bench.control.updates) == 9)

    play(store, story)


def _home(updates: list[MapRequest]) -> int:
    info = updates[-1].hostinfo if updates else None
    return info.net_info.preferred_derp if info is not None and info.net_info is not None else 0


def test_deltas_reach_the_engine_and_the_router(store: StateStore) -> None:
    async def story(bench: NodeBench) -> None:
        await bench.join()
        bench.control.streams[0].say({"PeersChanged": [peer(3)], "PeersRemoved": [2]})
        await bench.until("the peer to be removed", lambda: bench.engine.of(port.RemovePeer))
        assert bench.router.configs[-1].routes == (ip_network("100.64.0.3/32"),)
        before = len(bench.engine.orders)
        bench.control.streams[0].say({"PacketFilter": []})
        await bench.until("the new filter", lambda: len(bench.engine.orders) > before)
        assert bench.engine.orders[before:] == [port.SetFilter((ip_network("100.64.0.1/32"),), ())]

    play(store, story)


def test_thousands_of_peers_are_read_and_routed_in_several_turns_of_the_loop(store: StateStore) -> None:
    async def story(bench: NodeBench) -> None:
        await bench.join()
        turns: list[bool] = []
        real = bench.agent._reconciler.prepare

        def noting(netmap: Netmap, choices: Choices, limit: int) -> bool:
            turns.append(real(netmap, choices, limit))
            return turns[-1]

        bench.agent._reconciler.prepare = noting  # type: ignore[method-assign]
        bench.router.unfinished = 2
        many = [
            peer(9, ID=100 + n, Key=f"nodekey:{100 + n:064x}", Addresses=[f"100.70.{n >> 8}.{n & 255}/32"])
            for n in range(3 * READ_AT_ONCE)
        ]
        bench.control.streams[0].say({"PeersChanged": many})
        await bench.until("the last route", lambda: len(bench.router.configs[-1].routes) > len(many))
        await bench.until("the router to be done", lambda: bench.router.unfinished < 0)
        assert turns.count(False) >= 2
        assert len({order.peer.key for order in bench.engine.of(port.UpsertPeer)}) >= len(many)
        assert len({config.routes for config in bench.router.configs[-3:]}) == 1

    play(store, story)


def test_an_interactive_login_shows_its_page_again_when_asked(store: StateStore) -> None:
    async def story(bench: NodeBench) -> None:
        def answer(request: RegisterRequest) -> RegisterResponse:
            page = "" if request.followup else f"{bench.url}/a/1"
            return RegisterResponse(auth_url=page, machine_authorized=not page)

        bench.control.answer = answer
        bench.agent.set_prefs(Prefs(control_url=bench.url, want_running=True))
        bench.agent.show_login_page()
        await bench.until("the page", lambda: bench.heard(BrowseToURL))
        bench.agent.show_login_page()
        assert [notice.url for notice in bench.heard(BrowseToURL)] == [f"{bench.url}/a/1"] * 2
        assert bench.agent.state.label == "NeedsLogin"
        bench.control.approval.set()
        await bench.until("the login to end", lambda: bench.heard(LoginFinished))
        assert len(bench.control.registrations) == 2
        assert bench.agent.auth_url == ""

    play(store, story)


def test_a_refused_auth_key_is_said_and_nothing_is_configured(store: StateStore) -> None:
    async def story(bench: NodeBench) -> None:
        bench.control.answer = lambda _: RegisterResponse(error="The auth key was used already.")
        bench.agent.set_prefs(Prefs(control_url=bench.url, want_running=True))
        bench.agent.log_in(auth_key="spent")
        await bench.until("the word", lambda: bench.heard(Failed))
        assert bench.heard(Failed)[0].message == "The auth key was used already."
        assert bench.agent.state.label == "NeedsLogin"
        assert bench.router.configs == []
        assert store.node_key is None

    play(store, story)


def test_down_takes_the_tables_away_and_up_brings_them_back(store: StateStore) -> None:
    async def story(bench: NodeBench) -> None:
        await bench.join()
        prefs = bench.agent.prefs
        bench.agent.set_prefs(Prefs(control_url=bench.url, want_running=False))
        assert bench.agent.state.label == "Stopped"
        assert not bench.router.configs[-1].addresses
        await bench.until("the stream to end", lambda: not bench.control.streams)
        bench.agent.set_prefs(prefs)
        await bench.until("a stream", lambda: bench.control.streams)
        assert bench.router.configs[-1].addresses == (ip_address("100.64.0.1"),)
        assert len(bench.control.registrations) == 1, "a node is registered once a process"

    play(store, story)


def test_logout_tells_the_server_and_forgets(store: StateStore) -> None:
    async def story(bench: NodeBench) -> None:
        await bench.join()
        await bench.agent.log_out()
        assert bench.control.registrations[-1].expiry == LOGOUT_EXPIRY
        assert bench.agent.state.label == "NeedsLogin"
        assert store.node_key is None
        assert bench.agent.prefs.logged_out
        assert not bench.router.configs[-1].addresses
        assert port.RemovePeer(bench.engine.of(port.UpsertPeer)[0].peer.key) in bench.engine.orders

    play(store, story)


def test_two_logouts_at_once_both_end(store: StateStore) -> None:
    async def story(bench: NodeBench) -> None:
        await bench.join()
        async with asyncio.timeout(10):
            await asyncio.gather(bench.agent.log_out(), bench.agent.log_out())
        assert len([asked for asked in bench.control.registrations if asked.expiry == LOGOUT_EXPIRY]) == 1
        assert store.node_key is None

    play(store, story)


def test_a_logout_ends_when_the_login_is_forgotten_meanwhile(store: StateStore) -> None:
    async def story(bench: NodeBench) -> None:
        await bench.join()
        waiting = asyncio.ensure_future(bench.agent.log_out())
        await asyncio.sleep(0)
        bench.agent.forget()
        async with asyncio.timeout(10):
            await waiting
        assert store.node_key is None

    play(store, story)


def test_a_restart_without_the_server_goes_on_with_the_kept_netmap(store: StateStore) -> None:
    async def story(bench: NodeBench) -> None:
        await bench.join()
        disco = bench.control.updates[-1].disco_key
        await bench.close_control()
        await bench.restart_agent()
        assert bench.router.configs[-1].routes == (ip_network("100.64.0.2/32"),)
        assert bench.engine.of(port.UpsertPeer)
        assert str(store.disco.public()) == disco
        await bench.until("the relay", lambda: bench.engine.of(port.ConnectRelay))
        assert store.node_key is not None
        bench.engine.say(port.RelayUp(9, store.node_key.public()))
        await bench.until("Running", lambda: bench.agent.state.label == "Running")

    play(store, story)


def test_a_stopped_node_that_was_restarted_comes_up_without_the_server(store: StateStore) -> None:
    async def story(bench: NodeBench) -> None:
        await bench.join()
        wanted = bench.agent.prefs
        bench.agent.set_prefs(Prefs(control_url=bench.url, want_running=False))
        await bench.close_control()
        await bench.restart_agent()
        assert bench.agent.state.label == "Stopped"
        assert bench.router.configs == []
        bench.agent.set_prefs(wanted)
        assert bench.router.configs[-1].routes == (ip_network("100.64.0.2/32"),)

    play(store, story)


@pytest.mark.slow
def test_when_the_server_comes_back_the_stream_does_too_and_the_tables_stayed(store: StateStore) -> None:
    async def story(bench: NodeBench) -> None:
        await bench.join()
        await bench.close_control()
        await bench.until("the word of trouble", lambda: bench.agent.trouble)
        assert bench.agent.state.label == "Running"
        assert bench.router.configs[-1].addresses == (ip_address("100.64.0.1"),)
        orders = len(bench.engine.of(port.UpsertPeer))
        bench.control.streams.clear()
        await bench.open_control()
        await bench.until("a new stream", lambda: bench.control.streams)
        await bench.until("all to be well", lambda: not bench.agent.trouble)
        assert len(bench.engine.of(port.UpsertPeer)) == orders, "the same peers keep their sessions"

    play(store, story)


def test_an_expiry_pushed_stops_the_node_and_a_longer_life_starts_it_again(store: StateStore) -> None:
    async def story(bench: NodeBench) -> None:
        await bench.join()
        stream = bench.control.streams[0]
        node = first_message(stream.request)["Node"]
        stream.say({"Node": {**node, "KeyExpiry": format_time(1000.0)}})
        await bench.until("NeedsLogin", lambda: bench.agent.state.label == "NeedsLogin")
        assert not bench.router.configs[-1].addresses
        stream.say({"Node": node})
        await bench.until("to be back", lambda: bench.agent.state.label in ("Starting", "Running"))
        assert bench.router.configs[-1].addresses == (ip_address("100.64.0.1"),)

    play(store, story)


def test_an_expired_key_is_replaced_at_the_next_login(store: StateStore) -> None:
    async def story(bench: NodeBench) -> None:
        await bench.join()
        old = store.node_key
        assert old is not None
        stream = bench.control.streams[0]
        stream.say({"Node": {**first_message(stream.request)["Node"], "KeyExpiry": format_time(1000.0)}})
        await bench.until("NeedsLogin", lambda: bench.agent.state.label == "NeedsLogin")
        bench.agent.log_in(auth_key="another")
        await bench.until("the new key", lambda: store.node_key not in (None, old))
        assert bench.control.registrations[-1].old_node_key == str(old.public())
        assert port.SetPrivateKey(store.node_key) in bench.engine.orders  # type: ignore[arg-type]
        await bench.until("the stream under the new key", lambda: len(bench.control.streams) == 1)

    play(store, story)


def test_a_new_key_runs_when_a_netmap_of_its_own_came_and_not_on_the_old_one(store: StateStore) -> None:
    async def story(bench: NodeBench) -> None:
        await bench.join()
        bench.agent.log_in(auth_key="another", fresh=True)
        await bench.until("the relay to be reopened", lambda: len(bench.engine.of(port.ConnectRelay)) == 2)
        bench.engine.say(port.RelayUp(9, store.node_key.public()))  # type: ignore[union-attr]
        await bench.until("Running again", lambda: states(bench)[3:] == ["Starting", "Running"])
        assert bench.agent.self_node is not None
        assert bench.agent.self_node.key == str(bench.agent.node_key)

    play(store, story)


def test_a_server_that_holds_the_key_for_expired_gets_a_new_one_by_itself(store: StateStore) -> None:
    async def story(bench: NodeBench) -> None:
        await bench.join()
        old = store.node_key
        assert old is not None
        bench.control.answer = lambda request: RegisterResponse(
            node_key_expired=request.node_key == str(old.public()), machine_authorized=True
        )
        await bench.restart_agent()
        await bench.until("the new key", lambda: store.node_key not in (None, old))
        assert bench.control.registrations[-1].old_node_key == str(old.public())

    play(store, story)


def test_a_node_that_an_admin_must_approve_waits(store: StateStore) -> None:
    async def story(bench: NodeBench) -> None:
        def first(request: MapRequest) -> dict[str, object]:
            message = first_message(request)
            return {**message, "Node": {**message["Node"], "MachineAuthorized": False}}

        bench.control.first = first
        bench.agent.set_prefs(Prefs(control_url=bench.url, want_running=True))
        bench.agent.log_in(auth_key="x")
        await bench.until("NeedsMachineAuth", lambda: bench.agent.state.label == "NeedsMachineAuth")
        assert all(not config.addresses for config in bench.router.configs)
        stream = bench.control.streams[0]
        stream.say({"Node": first_message(stream.request)["Node"]})
        await bench.until("Starting", lambda: bench.agent.state.label == "Starting")

    play(store, story)


def test_another_server_is_another_node(store: StateStore) -> None:
    async def story(bench: NodeBench) -> None:
        await bench.join()
        bench.agent.set_prefs(Prefs(control_url="http://127.0.0.1:1", want_running=True))
        assert bench.agent.state.label == "NeedsLogin"
        assert store.node_key is None
        with pytest.raises(ConfigError):
            bench.agent.set_prefs(Prefs(control_url="nonsense"))
        assert bench.agent.prefs.control_url == "http://127.0.0.1:1"

    play(store, story)


def test_closing_leaves_nothing_and_keeps_the_node(store: StateStore) -> None:
    async def story(bench: NodeBench) -> None:
        await bench.join()
        await bench.agent.close()
        assert bench.router.removed == 1
        assert bench.engine.closed
        assert len(bench.control.registrations) == 1
        assert StateStore(store._path).node_key == store.node_key
        await bench.restart_agent()

    play(store, story)


def test_an_ephemeral_node_logs_out_when_it_ends() -> None:
    async def story(bench: NodeBench) -> None:
        await bench.join()
        assert bench.control.registrations[0].ephemeral
        await bench.agent.close()
        assert bench.control.registrations[-1].expiry == LOGOUT_EXPIRY
        await bench.restart_agent()

    play(StateStore(None), story)


def test_a_dead_engine_is_told_to_the_role(store: StateStore) -> None:
    async def story(bench: NodeBench) -> None:
        bench.engine.say(port.Fatal("the TUN device is gone"))
        assert await asyncio.wait_for(bench.agent.failed, 10) == "the TUN device is gone"

    play(store, story)


def test_a_ping_to_nobody_says_so_and_is_not_lost(store: StateStore) -> None:
    async def story(bench: NodeBench) -> None:
        await bench.join()
        outcome, lost = await ping_peer(bench.agent, ip_address("100.64.0.99"), PingResponse)
        assert (outcome.ip, outcome.err, lost) == (
            "100.64.0.99",
            "No peer of this tailnet has the address 100.64.0.99.",
            False,
        )

    play(store, story)


@pytest.mark.slow
def test_a_new_host_name_is_reported(store: StateStore) -> None:
    async def story(bench: NodeBench) -> None:
        await bench.join()
        bench.agent.set_prefs(Prefs(control_url=bench.url, want_running=True, hostname="kichijouji"))
        await bench.until(
            "the report",
            lambda: any(u.hostinfo is not None and u.hostinfo.hostname == "kichijouji" for u in bench.control.updates),
        )

    play(store, story)


# ---- a full disk ------------------------------------------------------------------------------------------------------


def test_a_login_that_cannot_be_kept_is_given_up_and_the_next_one_goes_well(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "d" / "s")

    async def story(bench: NodeBench) -> None:
        def fill(_: RegisterRequest) -> RegisterResponse:
            (tmp_path / "d").rename(tmp_path / "away")
            return RegisterResponse(machine_authorized=True)

        bench.control.answer = fill
        bench.agent.set_prefs(Prefs(control_url=bench.url, want_running=True))
        bench.agent.log_in(auth_key="tskey-auth-x")
        await bench.until("the failure", lambda: bench.heard(Failed))
        assert "burid.state" not in bench.heard(Failed)[0].message
        assert "cannot be written" in bench.heard(Failed)[0].message
        assert bench.agent.node_key is None
        assert store.node_key is None
        assert not bench.agent.control_connected
        (tmp_path / "away").rename(tmp_path / "d")
        bench.control.answer = lambda _: RegisterResponse(machine_authorized=True)
        await bench.join()

    play(store, story)


def test_a_full_disk_stops_neither_a_reconnect_nor_a_logout(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "d" / "s")

    async def story(bench: NodeBench) -> None:
        await bench.join()
        (tmp_path / "d").rename(tmp_path / "away")
        bench.control.streams[0].end()
        await bench.until("the stream to end", lambda: not bench.control.streams)
        await bench.until("another stream", lambda: bench.control.streams)
        before = bench.agent.prefs
        with pytest.raises(SystemFault, match="cannot be written"):
            bench.agent.set_prefs(Prefs(control_url="http://elsewhere.test"))
        assert bench.agent.prefs == before
        assert store.node_key is not None
        await bench.agent.log_out()
        assert bench.agent.node_key is None
        assert states(bench)[-1] == "NeedsLogin"

    play(store, story)


# ---- clocks ------------------------------------------------------------------------------------------------------------


def test_ends_of_keys_are_judged_by_the_server_s_clock_and_a_far_clock_is_told(store: StateStore) -> None:
    async def story(bench: NodeBench) -> None:
        def years_ago(request: MapRequest) -> dict[str, Any]:
            message = first_message(request)
            message["Node"] |= {"KeyExpiry": "2019-06-01T00:00:00Z"}
            return message | {"ControlTime": "2019-05-01T00:00:00Z"}

        bench.control.first = years_ago
        await bench.join()
        assert not bench.agent.is_expired
        assert "This machine's clock says" in " ".join(statusview.health(bench.agent))
        own = {**years_ago(bench.control.streams[0].request)["Node"], "KeyExpiry": "2019-04-01T00:00:00Z"}
        bench.control.streams[0].say({"Node": own})
        await bench.until("the end of the key", lambda: states(bench)[-1] == "NeedsLogin")

    play(store, story)
