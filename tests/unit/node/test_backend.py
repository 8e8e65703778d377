"""What the command line asks of the daemon, in the order it asks it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from ipaddress import ip_address
from pathlib import Path

import msgspec
import pytest

from buri.core.errors import ConfigError, StateError
from buri.engine import port
from buri.node.backend import WATCHER_LIMIT, AgentBackend
from buri.node.notices import LoginFinished
from buri.node.statestore import StateStore
from buri.testing.nodebench import NodeBench
from buri.wire.localapi import BackendState, Notify, NotifyMask, Options, Prefs, mask
from buri.wire.tailcfg.register import RegisterRequest, RegisterResponse

Story = Callable[[NodeBench, AgentBackend], Awaitable[None]]
NOTHING = NotifyMask(0)


def play(path: Path, story: Story) -> None:
    async def run() -> None:
        async with NodeBench(StateStore(path / "s")) as bench:
            await story(bench, AgentBackend(bench.agent, bench.ticker.tick))

    asyncio.run(run())


async def up(bench: NodeBench, backend: AgentBackend, auth_key: str = "tskey-auth-x") -> None:
    """`up --auth-key`: start, then login-interactive, as Tailscale's command line does."""
    await backend.start(Options(update_prefs=Prefs(control_url=bench.url, want_running=True), auth_key=auth_key))
    await backend.login_interactive()
    await bench.until("the relay", lambda: bench.engine.of(port.ConnectRelay))
    key = bench.store.node_key
    assert key is not None
    bench.engine.say(port.RelayUp(9, key.public()))
    await bench.until("Running", lambda: bench.agent.state is BackendState.RUNNING)


async def next_with(bus: AsyncIterator[Notify], name: str) -> Notify:
    async with asyncio.timeout(10):
        async for notify in bus:
            if getattr(notify, name) is not None:
                return notify
    raise AssertionError(f"the bus ended without {name}")


def test_up_with_an_auth_key_registers_once(tmp_path: Path) -> None:
    async def story(bench: NodeBench, backend: AgentBackend) -> None:
        with backend.watch(NOTHING) as bus:
            await up(bench, backend)
            await next_with(bus, "login_finished")
        assert len(bench.control.registrations) == 1

    play(tmp_path, story)


def test_a_login_that_is_over_before_the_second_call_is_not_begun_again(tmp_path: Path) -> None:
    async def story(bench: NodeBench, backend: AgentBackend) -> None:
        await backend.start(Options(update_prefs=Prefs(control_url=bench.url, want_running=True), auth_key="k"))
        await bench.until("the login", lambda: bench.heard(LoginFinished))
        await backend.login_interactive()
        assert len(bench.control.registrations) == 1

    play(tmp_path, story)


def test_forced_reauthentication_takes_a_new_key(tmp_path: Path) -> None:
    async def story(bench: NodeBench, backend: AgentBackend) -> None:
        await up(bench, backend)
        old = bench.agent.node_key
        await backend.start(Options(update_prefs=bench.agent.prefs, auth_key="another"))
        assert len(bench.control.registrations) == 1, "the key alone is no reason to register"
        await backend.login_interactive()
        await bench.until("another key", lambda: bench.agent.node_key not in (None, old))
        request = bench.control.registrations[-1]
        assert request.old_node_key == str(old)
        assert request.auth is not None
        assert request.auth.auth_key == "another"

    play(tmp_path, story)


def test_up_of_a_running_node_hears_the_state_again(tmp_path: Path) -> None:
    async def story(bench: NodeBench, backend: AgentBackend) -> None:
        await up(bench, backend)
        with backend.watch(NOTHING) as bus:
            await backend.edit_prefs(mask(want_running=True))
            assert (await next_with(bus, "state")).state is BackendState.RUNNING
        with backend.watch(NOTHING) as bus:
            await backend.start(Options())
            assert (await next_with(bus, "state")).state is BackendState.RUNNING

    play(tmp_path, story)


def test_a_watcher_that_never_reads_is_cut_off(tmp_path: Path) -> None:
    async def story(bench: NodeBench, backend: AgentBackend) -> None:
        with backend.watch(NOTHING) as bus, backend.watch(NOTHING) as other:
            for _ in range(WATCHER_LIMIT + 5):
                bench.agent.repeat_state()
            assert [notify async for notify in bus] == []
            assert [notify async for notify in other] == []
        with backend.watch(NOTHING) as bus:
            bench.agent.repeat_state()
            assert (await next_with(bus, "state")).state is BackendState.NEEDS_LOGIN

    play(tmp_path, story)


def test_an_interactive_up_gets_its_page_from_the_bus(tmp_path: Path) -> None:
    async def story(bench: NodeBench, backend: AgentBackend) -> None:
        def answer(request: RegisterRequest) -> RegisterResponse:
            return RegisterResponse(auth_url="" if request.followup else "https://c/a/1", machine_authorized=True)

        bench.control.answer = answer
        with backend.watch(NOTHING) as bus:
            await backend.start(Options(update_prefs=Prefs(control_url=bench.url)))
            await backend.login_interactive()
            assert (await next_with(bus, "browse_to_url")).browse_to_url == "https://c/a/1"
            assert (await backend.status(peers=False)).auth_url == "https://c/a/1"
            bench.control.approval.set()
            await next_with(bus, "login_finished")

    play(tmp_path, story)


def test_a_failed_login_is_a_message_on_the_bus(tmp_path: Path) -> None:
    async def story(bench: NodeBench, backend: AgentBackend) -> None:
        bench.control.answer = lambda _: RegisterResponse(error="The auth key has expired.")
        with backend.watch(NOTHING) as bus:
            await backend.start(Options(update_prefs=Prefs(control_url=bench.url), auth_key="old"))
            assert (await next_with(bus, "err_message")).err_message == "The auth key has expired."

    play(tmp_path, story)


def test_the_first_message_is_what_the_mask_asks(tmp_path: Path) -> None:
    async def story(bench: NodeBench, backend: AgentBackend) -> None:
        asked = NotifyMask.INITIAL_STATE | NotifyMask.INITIAL_PREFS | NotifyMask.INITIAL_STATUS
        with backend.watch(asked) as bus:
            first = await anext(bus)
        assert first.state is BackendState.NEEDS_LOGIN
        assert first.prefs is not None
        assert first.initial_status is not None
        assert first.initial_status.backend_state == "NeedsLogin"

    play(tmp_path, story)


def test_peer_changes_are_told_to_those_who_ask(tmp_path: Path) -> None:
    async def story(bench: NodeBench, backend: AgentBackend) -> None:
        await up(bench, backend)
        with backend.watch(NotifyMask.PEER_CHANGES) as bus:
            bench.control.streams[0].say({"PeersRemoved": [2]})
            assert (await next_with(bus, "peers_removed")).peers_removed == [2]

    play(tmp_path, story)


def test_status_shows_this_node_and_its_peers(tmp_path: Path) -> None:
    async def story(bench: NodeBench, backend: AgentBackend) -> None:
        before = await backend.status(peers=True)
        assert (before.backend_state, before.have_node_key, before.peer) == ("NeedsLogin", False, None)
        await up(bench, backend)
        status = await backend.status(peers=True)
        assert status.tailscale_ips == ["100.64.0.1"]
        assert status.magic_dns_suffix == "tailnet.test"
        assert status.self_node.relay == "lab"
        assert status.peer is not None
        (peer,) = status.peer.values()
        assert (peer.host_name, peer.dns_name, peer.relay, peer.cur_addr) == ("p2", "p2.tailnet.test.", "lab", "")
        assert peer.in_magic_sock
        assert status.user is not None
        assert status.user[5].login_name == "ame@example.com"
        assert (await backend.status(peers=False)).peer is None

    play(tmp_path, story)


def test_whois_finds_by_address_port_and_key(tmp_path: Path) -> None:
    async def story(bench: NodeBench, backend: AgentBackend) -> None:
        assert await backend.whois("100.64.0.2", "") is None
        await up(bench, backend)
        for query in ("100.64.0.2", "100.64.0.2:22", "nodekey:" + "02" * 32):
            found = await backend.whois(query, "tcp")
            assert found is not None
            assert found.node.id == 2
        mine = await backend.whois("100.64.0.1", "")
        assert mine is not None
        assert mine.user_profile.login_name == "ame@example.com"
        for query in ("100.64.0.9", "nonsense", "", "[::1]:5"):
            assert await backend.whois(query, "") is None

    play(tmp_path, story)


def test_pings_that_cannot_be_say_why(tmp_path: Path) -> None:
    async def story(bench: NodeBench, backend: AgentBackend) -> None:
        await up(bench, backend)
        own = await backend.ping(ip_address("100.64.0.1"), "disco", 0)
        assert own.is_local_ip
        assert "own address" in own.err
        assert "No peer" in (await backend.ping(ip_address("100.64.0.9"), "disco", 0)).err
        silent = await backend.ping(ip_address("100.64.0.2"), "disco", 0, 0.01)
        assert silent.lost
        assert silent.err
        assert "no peerapi pings" in (await backend.ping(ip_address("100.64.0.2"), "peerapi", 0)).err
        assert "No peer" in (await backend.ping(ip_address("100.64.0.9"), "TSMP", 0)).err

    play(tmp_path, story)


def test_preferences_that_would_silently_do_nothing_are_refused(tmp_path: Path) -> None:
    async def story(bench: NodeBench, backend: AgentBackend) -> None:
        for edit in (
            mask(exit_node_ip="100.64.0.2"),
            mask(advertise_routes=["10.0.0.0/8"]),
            mask(run_ssh=True),
            mask(hostname="not a label."),
            mask(control_url="ftp://x"),
        ):
            with pytest.raises(ConfigError):
                await backend.edit_prefs(edit)
        assert (await backend.edit_prefs(mask(hostname="kichijouji"))).hostname == "kichijouji"
        kept = msgspec.json.decode(StateStore(tmp_path / "s").state.prefs, type=Prefs)
        assert kept.hostname == "kichijouji"

    play(tmp_path, story)


def test_the_profile_and_the_netmap_are_there_while_logged_in(tmp_path: Path) -> None:
    async def story(bench: NodeBench, backend: AgentBackend) -> None:
        assert (await backend.profile()).id == ""
        assert await backend.netmap() is None
        assert (await backend.prefs()).config is None
        await up(bench, backend)
        assert (await backend.profile()).user_profile.login_name == "ame@example.com"
        netmap = await backend.netmap()
        assert netmap is not None
        assert [node.id for node in netmap.peers] == [2]
        config = (await backend.prefs()).config
        assert config is not None
        assert config.node_id == "n1"
        await backend.reset_auth()
        assert bench.agent.state is BackendState.NEEDS_LOGIN
        assert len(bench.control.registrations) == 1

    play(tmp_path, story)


def test_debug_actions_and_metrics(tmp_path: Path) -> None:
    async def story(bench: NodeBench, backend: AgentBackend) -> None:
        await up(bench, backend)
        await backend.debug("rebind")
        assert bench.engine.of(port.Rebind)
        await backend.debug("break-derp-conns")
        assert bench.engine.of(port.CloseRelay)
        with pytest.raises(StateError, match="no debug action"):
            await backend.debug("dance")
        assert isinstance(await backend.metrics(), str)

    play(tmp_path, story)
