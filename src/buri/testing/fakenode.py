"""A node without an engine, for LocalAPI's tests: a Backend that keeps its state in fields and records its calls.

`serve` runs it behind the real LocalAPI server in a thread; `python -m buri.testing.fakenode SOCKET` in a process.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec.structs import replace

from buri.core.addresses import IPAddress
from buri.core.errors import ConfigError, StateError
from buri.node.localapi.server import LocalAPIServer
from buri.wire.localapi import (
    BackendState,
    LoginProfile,
    MaskedPrefs,
    NetcheckReport,
    NetworkMap,
    Notify,
    NotifyMask,
    Options,
    PeerStatus,
    PingResult,
    Prefs,
    Status,
    TailnetStatus,
    WhoIsResponse,
)
from buri.wire.tailcfg.derpmap import DERPMap, DERPNode, DERPRegion
from buri.wire.tailcfg.node import Node, UserProfile

SELF_KEY, PEER_KEY = "nodekey:" + "11" * 32, "nodekey:" + "22" * 32
LOGIN_URL = "https://buri.example.com/login/abc123"
WRONG_KEY = "wrong-key"
_USER = UserProfile(id=7, login_name="alice@example.com", display_name="Alice")
_PEER_NODE = Node(
    id=2,
    stable_id="n2",
    name="osaka.tail.example.",
    user=7,
    key=PEER_KEY,
    addresses=["100.64.0.2/32", "fd7a:115c:a1e0::2/128"],
)


class FakeNode:
    """Logged out at first. An auth key but WRONG_KEY logs in at once; without one, `approve` ends the login."""

    def __init__(self, *, running: bool = False) -> None:
        self.current = Prefs()
        self.state = BackendState.NEEDS_LOGIN
        self.self_key = ""
        self.asked: list[str] = []
        self.pings: list[PingResult] = []  # answered in order, the last one again and again; none: no answer ever
        self.health: list[str] = []
        self.stopped = asyncio.Event()
        self._watchers: list[asyncio.Queue[Notify]] = []
        if running:
            self.current = Prefs(control_url="https://buri.example.com", want_running=True)
            self._logged_in()
            self.state = BackendState.RUNNING

    # ---- what a test does to it -------------------------------------------------------------------------------------

    def approve(self) -> None:
        """A person opened the login page and said yes."""
        self._logged_in()
        self._become(BackendState.STARTING)
        self._become(BackendState.RUNNING)

    def tell(self, notice: Notify) -> None:
        """Say something on the bus."""
        for queue in self._watchers:
            queue.put_nowait(notice)

    # ---- Backend ----------------------------------------------------------------------------------------------------

    async def status(self, *, peers: bool) -> Status:
        status = Status(
            version="0.1.0-fake",
            backend_state=self.state.label,
            have_node_key=bool(self.self_key),
            health=self.health,
            magic_dns_suffix="tail.example",
            current_tailnet=TailnetStatus(name="example", magic_dns_suffix="tail.example", magic_dns_enabled=True),
            user={7: _USER},
        )
        if self.state is not BackendState.RUNNING:
            return status
        status.tailscale_ips = ["100.64.0.1", "fd7a:115c:a1e0::1"]
        status.self_node = PeerStatus(
            id="n1",
            node_id=1,
            public_key=self.self_key,
            host_name="tokyo",
            dns_name="tokyo.tail.example.",
            os="linux",
            user_id=7,
            tailscale_ips=status.tailscale_ips,
            online=True,
            relay="lab",
            in_network_map=True,
        )
        if peers:
            status.peer = {PEER_KEY: self._peer()}
        return status

    async def prefs(self) -> Prefs:
        return self.current

    async def edit_prefs(self, edit: MaskedPrefs) -> Prefs:
        self.asked.append(f"edit {' '.join(edit.names_set())}")
        await self.check_prefs(edit.apply_to(self.current))
        self.current = edit.apply_to(self.current)
        self.tell(Notify(prefs=self.current))
        if self.self_key:
            self._become(BackendState.RUNNING if self.current.want_running else BackendState.STOPPED)
        return self.current

    async def check_prefs(self, prefs: Prefs) -> None:
        if prefs.run_ssh:
            raise ConfigError("Buri has no SSH server yet.", remedy="Leave --ssh out.")

    async def start(self, options: Options) -> None:
        self.asked.append(f"start {options.auth_key}".rstrip())
        if options.update_prefs is not None:
            self.current = replace(options.update_prefs, config=self.current.config)
        if options.auth_key == WRONG_KEY:
            self.tell(Notify(err_message="The control server refused the auth key: it is not known."))
        elif options.auth_key:
            self.approve()
        else:
            self.tell(Notify(state=self.state))

    async def login_interactive(self) -> None:
        self.asked.append("login-interactive")
        if not self.self_key:
            self.tell(Notify(browse_to_url=LOGIN_URL))

    async def logout(self) -> None:
        if not self.self_key:
            raise StateError("This node is not logged in.")
        self.self_key = ""
        self.current = replace(self.current, config=None, logged_out=True, want_running=False)
        self._become(BackendState.NEEDS_LOGIN)

    async def ping(self, address: IPAddress, kind: str, size_bytes: int, patience_s: float | None = None) -> PingResult:
        self.asked.append(f"ping {address} {kind} {size_bytes}")
        if str(address) == "100.64.0.1":
            return PingResult(ip=str(address), err=f"{address} is local Tailscale IP", is_local_ip=True)
        if not self.pings:
            try:
                await asyncio.Event().wait()
            finally:
                self.asked.append("ping ended")
        return self.pings[0] if len(self.pings) == 1 else self.pings.pop(0)

    async def whois(self, query: str, protocol: str) -> WhoIsResponse | None:
        if query.partition(":")[0] != "100.64.0.2":
            return None
        return WhoIsResponse(node=_PEER_NODE, user_profile=_USER)

    async def derp_map(self) -> DERPMap | None:
        node = DERPNode(name="9a", region_id=9, host_name="relay.example", ipv4="127.0.0.1", stun_port=-1)
        return DERPMap(regions={9: DERPRegion(region_id=9, region_code="lab", region_name="Lab", nodes=[node])})

    async def netcheck(self) -> NetcheckReport:
        return NetcheckReport(udp=True, global_v4="203.0.113.5:41641", preferred_derp=9, region_latency={9: 2_340_000})

    @contextmanager
    def watch(self, mask: NotifyMask) -> Iterator[AsyncIterator[Notify]]:
        queue: asyncio.Queue[Notify] = asyncio.Queue()
        if mask & NotifyMask.INITIAL_STATE:
            queue.put_nowait(Notify(version="0.1.0-fake", state=self.state))
        self._watchers.append(queue)
        try:
            yield _drain(queue)
        finally:
            self._watchers.remove(queue)
            self.asked.append("watch ended")

    async def profile(self) -> LoginProfile:
        return LoginProfile(id="buri", name="alice@example.com") if self.self_key else LoginProfile()

    async def netmap(self) -> NetworkMap | None:
        return NetworkMap(peers=[_PEER_NODE]) if self.state is BackendState.RUNNING else None

    async def metrics(self) -> str:
        return "# TYPE buri_packets_total counter\nburi_packets_total 3\n"

    async def debug(self, action: str) -> str:
        if action != "restun":
            raise StateError(f"There is no debug action {action!r}.")
        return ""

    async def reset_auth(self) -> None:
        self.self_key = ""

    async def shutdown(self) -> None:
        self.stopped.set()

    # ---- small helps ------------------------------------------------------------------------------------------------

    def _peer(self) -> PeerStatus:
        return PeerStatus(
            id="n2",
            node_id=2,
            public_key=PEER_KEY,
            host_name="osaka",
            dns_name="osaka.tail.example.",
            os="linux",
            user_id=7,
            tailscale_ips=["100.64.0.2", "fd7a:115c:a1e0::2"],
            relay="lab",
            rx_bytes=5678,
            tx_bytes=1234,
            online=True,
            active=True,
            in_network_map=True,
            why_relayed="peer behind hard NAT",
        )

    def _logged_in(self) -> None:
        from buri.wire.localapi import Persist

        self.self_key = SELF_KEY
        self.current = replace(self.current, config=Persist(user_profile=_USER, node_id="n1"), logged_out=False)

    def _become(self, state: BackendState) -> None:
        self.state = state
        self.tell(Notify(state=state))


async def _drain(queue: asyncio.Queue[Notify]) -> AsyncIterator[Notify]:
    while True:
        yield await queue.get()


class Served:
    """A fake node behind a real LocalAPI server, in a thread of its own."""

    def __init__(self, path: Path, *, running: bool = False) -> None:
        self.path = path
        self.node: FakeNode
        self._running = running
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="fake-node")
        self._loop: asyncio.AbstractEventLoop

    def __enter__(self) -> Served:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self.call(self.node.stopped.set)
        self._thread.join()

    def call(self, function: object, *args: object) -> None:
        """Call something of the node in its own thread, soon."""
        assert callable(function)
        self._loop.call_soon_threadsafe(function, *args)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.node = FakeNode(running=self._running)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(self.path))
            listener.listen()
            server = LocalAPIServer(self.node, listener)
            server.start()
            self._ready.set()
            await self.node.stopped.wait()
            await server.close()
        self.path.unlink()


def serve(path: Path, *, running: bool = False) -> Served:
    """Use as a context manager: the socket listens inside."""
    return Served(path, running=running)


if __name__ == "__main__":
    with serve(Path(sys.argv[1]), running="--running" in sys.argv) as served:
        served.node.pings.append(
            PingResult(node_ip="100.64.0.2", node_name="osaka", endpoint="192.0.2.1:41641", latency_seconds=0.002)
        )
        sys.stdout.write("listening\n")
        sys.stdout.flush()
        sys.stdin.read()
