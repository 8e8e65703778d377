"""An agent between a scripted control server, an engine that only takes notes, and a router that does the same.

The control server's front is the real one, on a loopback port; only its domain is scripted. Everything that happens
ticks one condition, so a test awaits facts and never sleeps.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Any

import msgspec

from buri.control.noisefront.listener import NoiseFront
from buri.control.noisefront.machineroutes import MachineRoutes
from buri.control.noisefront.pages import Pages
from buri.control.service import PendingLogin
from buri.core.addresses import AddrPort
from buri.core.keys import MachinePrivate, MachinePublic
from buri.engine import port
from buri.machine.mapframes import zstd
from buri.node.agent import Agent
from buri.node.notices import Notice
from buri.node.router import RouterConfig
from buri.node.statestore import StateStore
from buri.wire.localapi import Prefs
from buri.wire.tailcfg.mapping import MapRequest
from buri.wire.tailcfg.register import RegisterRequest, RegisterResponse

WAIT_S = 10.0  # only a broken test waits so long


class Ticker:
    """Wakes whoever waits for a condition, each time anything happened."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def tick(self) -> None:
        self._event.set()

    async def until(self, what: str, condition: Callable[[], object]) -> None:
        """Wait until `condition()` holds; AssertionError says `what` when it does not come."""
        try:
            async with asyncio.timeout(WAIT_S):
                while not condition():
                    await self._event.wait()
                    self._event.clear()
        except TimeoutError:
            raise AssertionError(f"waited in vain for {what}") from None


class NotingEngine:
    """An engine that keeps every order, and says what a test tells it to."""

    def __init__(self, ticker: Ticker) -> None:
        self.orders: list[port.Order] = []
        self.closed = False
        self._ticker = ticker
        self._events: deque[port.Event] = deque()
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def apply(self, orders: Sequence[port.Order]) -> None:
        self.orders += orders
        self._ticker.tick()

    def poll_events(self, limit: int = 256) -> list[port.Event]:
        os.read(self._read, 4096)
        events = list(self._events)
        self._events.clear()
        return events

    def fileno(self) -> int:
        return self._read

    def stats(self) -> port.EngineStats:
        return port.EngineStats((), {})

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            os.close(self._read)
            os.close(self._write)

    def say(self, event: port.Event) -> None:
        self._events.append(event)
        os.write(self._write, b".")

    def of(self, kind: type[Any]) -> list[Any]:
        """All orders of one kind."""
        return [order for order in self.orders if isinstance(order, kind)]


class NotingRouter:
    """A router that keeps every configuration; `unfinished` calls say that there is more to do."""

    def __init__(self, ticker: Ticker) -> None:
        self.configs: list[RouterConfig] = []
        self.unfinished = 0
        self.removed = 0
        self._ticker = ticker

    def apply(self, config: RouterConfig) -> bool:
        self.configs.append(config)
        self._ticker.tick()
        self.unfinished -= 1
        return self.unfinished < 0

    def remove(self) -> None:
        self.removed += 1

    def close(self) -> None:
        pass


class ScriptedStream:
    """A map stream that says what the test puts into it."""

    def __init__(self, request: MapRequest, ended: Callable[[ScriptedStream], None]) -> None:
        self.request = request
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._ended = ended

    def say(self, message: dict[str, Any]) -> None:
        body = zstd.compress(msgspec.json.encode(message))
        self._queue.put_nowait(len(body).to_bytes(4, "little") + body)

    def end(self) -> None:
        self._queue.put_nowait(None)

    async def next(self) -> bytes:
        frame = await self._queue.get()
        if frame is None:
            raise StopAsyncIteration
        return frame

    def close(self) -> None:
        self._ended(self)


class ScriptedControl:
    """The domain of a control server, as a test wants it. `answer` is called for each registration."""

    def __init__(self, ticker: Ticker) -> None:
        self.registrations: list[RegisterRequest] = []
        self.updates: list[MapRequest] = []
        self.streams: list[ScriptedStream] = []
        self.answer: Callable[[RegisterRequest], Any] = lambda _: RegisterResponse(machine_authorized=True)
        self.approval = asyncio.Event()
        self.first: Callable[[MapRequest], dict[str, Any]] = first_message
        self._ticker = ticker

    async def register(self, machine: MachinePublic, request: RegisterRequest, source: str = "") -> RegisterResponse:
        self.registrations.append(request)
        self._ticker.tick()
        if request.followup:
            await self.approval.wait()
        answer: RegisterResponse = self.answer(request)
        return answer

    async def update(self, machine: MachinePublic, request: MapRequest) -> None:
        self.updates.append(request)
        self._ticker.tick()

    async def full_map(self, machine: MachinePublic, request: MapRequest) -> bytes:
        raise AssertionError("a node never asks for that")

    async def open_map(self, machine: MachinePublic, request: MapRequest) -> ScriptedStream:
        stream = ScriptedStream(request, self._gone)
        stream.say(self.first(request))
        self.streams.append(stream)
        self._ticker.tick()
        return stream

    def pending_login(self, code: str) -> PendingLogin | None:
        return None

    def _gone(self, stream: ScriptedStream) -> None:
        if stream in self.streams:
            self.streams.remove(stream)
        self._ticker.tick()


def first_message(request: MapRequest) -> dict[str, Any]:
    """The first message of a stream: this node, one peer, one relay."""
    node = {
        "ID": 1,
        "StableID": "n1",
        "Name": "me.tailnet.test.",
        "User": 5,
        "Key": request.node_key,
        "Addresses": ["100.64.0.1/32"],
        "MachineAuthorized": True,
    }
    relay = {"Name": "9a", "RegionID": 9, "HostName": "127.0.0.1", "IPv4": "127.0.0.1", "STUNPort": -1}
    return {
        "Node": node,
        "Domain": "tailnet.test",
        "DERPMap": {"Regions": {"9": {"RegionID": 9, "RegionCode": "lab", "Nodes": [relay]}}},
        "Peers": [peer(2)],
        "UserProfiles": [{"ID": 5, "LoginName": "ame@example.com"}],
        "PacketFilter": [{"SrcIPs": ["*"], "DstPorts": [{"IP": "*", "Ports": {"First": 0, "Last": 65535}}]}],
    }


def peer(number: int, **more: Any) -> dict[str, Any]:
    """A peer 100.64.0.<number>."""
    return {
        "ID": number,
        "Name": f"p{number}.tailnet.test.",
        "Key": "nodekey:" + f"{number:02x}" * 32,
        "DiscoKey": "discokey:" + f"{number:02x}" * 32,
        "Addresses": [f"100.64.0.{number}/32"],
        "HomeDERP": 9,
        "Hostinfo": {"Hostname": f"p{number}", "OS": "linux"},
        **more,
    }


class NodeBench:
    """The whole arrangement; `async with` it."""

    def __init__(self, store: StateStore) -> None:
        self.store = store
        self.ticker = Ticker()
        self.control = ScriptedControl(self.ticker)
        self.router = NotingRouter(self.ticker)
        self.engine = NotingEngine(self.ticker)
        self.notices: list[Notice] = []
        self.url = ""
        self._front: NoiseFront | None = None
        self.agent: Agent

    async def __aenter__(self) -> NodeBench:
        await self.open_control()
        self.start_agent()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.agent.close()
        await self.close_control()

    async def open_control(self) -> None:
        """Open the control server, at a new port or at the one it had."""
        key = MachinePrivate.from_entropy(b"c" * 32)
        port_number = int(self.url.rpartition(":")[2]) if self.url else 0
        pages = Pages(key.public(), self.url, tls=False)
        self._front = NoiseFront(key, pages.handle, MachineRoutes(self.control).handle)
        bound = await self._front.listen_tcp(AddrPort(ip_address("127.0.0.1"), port_number))
        self.url = f"http://{bound}"

    async def close_control(self) -> None:
        """Stop the control server."""
        if self._front is not None:
            await self._front.close()
            self._front = None

    def start_agent(self) -> None:
        """Make and start the agent on the store as it is."""
        self.agent = Agent(self.store, self.engine, self.router, interface="buri-test", fixed_port=True)
        self.agent.subscribe(self._hear)
        self.agent.start()

    async def restart_agent(self) -> None:
        """End the agent and start another on the same state."""
        await self.agent.close()
        self.router, self.engine = NotingRouter(self.ticker), NotingEngine(self.ticker)
        self.start_agent()

    async def until(self, what: str, condition: Callable[[], object]) -> None:
        """Wait for a fact."""
        await self.ticker.until(what, condition)

    async def join(self) -> None:
        """Log in with an auth key and come to Running: the relay is up at once."""
        self.agent.set_prefs(Prefs(control_url=self.url, want_running=True))
        self.agent.log_in(auth_key="tskey-auth-x")
        await self.until("the order to connect the relay", lambda: self.engine.of(port.ConnectRelay))
        self.engine.say(port.RelayUp(9, self.agent.store.node_key.public()))  # type: ignore[union-attr]
        await self.until("Running", lambda: self.agent.state.label == "Running")

    def heard(self, kind: type[Any]) -> list[Any]:
        """All notices of one kind."""
        return [notice for notice in self.notices if isinstance(notice, kind)]

    def _hear(self, notice: Notice) -> None:
        self.notices.append(notice)
        self.ticker.tick()
