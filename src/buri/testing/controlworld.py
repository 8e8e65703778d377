"""The control server's domain without disk and clock, and a client that applies netmap messages as real ones do."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from buri.control.coordinator import Coordinator
from buri.control.edit import Write
from buri.control.settings import Settings
from buri.control.snapshot import Counters, Snapshot
from buri.core.errors import BuriError
from buri.core.keys import DiscoPublic, MachinePublic, NodePublic
from buri.wire.tailcfg.derpmap import DERPMap, DERPNode, DERPRegion
from buri.wire.tailcfg.mapping import MapRequest
from buri.wire.tailcfg.node import Hostinfo, NetInfo
from buri.wire.tailcfg.register import RegisterAuth, RegisterRequest, RegisterResponse

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CAPABILITY_VERSION = 142
START_S = 1_800_000_000.0


class FakeTimer:
    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None


class FakeClock:
    """`control.clock.Clock` that moves only when told."""

    def __init__(self, wall_s: float = START_S) -> None:
        self._wall_s = wall_s
        self._timers: list[tuple[float, int, FakeTimer]] = []
        self._numbers = itertools.count()

    def wall_s(self) -> float:
        return self._wall_s

    def call_later(self, delay_s: float, call: Callable[[], None]) -> FakeTimer:
        timer = FakeTimer(call)
        heapq.heappush(self._timers, (self._wall_s + delay_s, next(self._numbers), timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Move on, running on the way what falls due."""
        until = self._wall_s + seconds
        while self._timers and self._timers[0][0] <= until:
            due, _, timer = heapq.heappop(self._timers)
            self._wall_s = max(self._wall_s, due)
            if timer.call is not None:
                timer.call()
        self._wall_s = until


class FakeCommitLog:
    """A store in memory. Commits at once, or when `release` says so; `fail_with` makes it fail."""

    def __init__(self, *, held: bool = False) -> None:
        self.held = held
        self.fail_with: BuriError | None = None
        self.written: list[Write] = []
        self._waiting: list[tuple[Sequence[Write], Callable[[BuriError | None], None]]] = []

    def submit(self, _epoch: int, writes: Sequence[Write], done: Callable[[BuriError | None], None]) -> None:
        self._waiting.append((writes, done))
        if not self.held:
            self.release()

    def release(self) -> None:
        """Finish what waits, in order; after a failure the rest of it fails too, as in the real store."""
        waiting, self._waiting = self._waiting, []
        error = self.fail_with
        for writes, done in waiting:
            if error is None:
                self.written.extend(writes)
            done(error)

    def close(self) -> None:
        self.release()


def derp_map(*regions: int) -> DERPMap:
    """A map with one relay a region."""
    return DERPMap(
        regions={
            number: DERPRegion(
                region_id=number,
                region_code=f"r{number}",
                nodes=[DERPNode(name=f"{number}a", region_id=number, host_name=f"relay{number}.example")],
            )
            for number in regions
        }
    )


def empty_snapshot() -> Snapshot:
    return Snapshot.build(
        tailnet_id=1,
        base_domain="buri.internal",
        nodes=[],
        users=[],
        auth_keys=[],
        counters=Counters(),
        derp_map=derp_map(900),
    )


class World:
    """A coordinator over fakes, seeded; make it inside a running event loop."""

    def __init__(
        self, *, journal: FakeCommitLog | None = None, snapshot: Snapshot | None = None, **settings: Any
    ) -> None:
        self.random = random.Random(1)
        self.clock = FakeClock()
        self.journal = journal or FakeCommitLog()
        self._settings = Settings(url="http://10.77.0.1:8080", **settings)
        self.coordinator = self._coordinator(snapshot or empty_snapshot())
        self.admin = self.coordinator.admin

    def _coordinator(self, snapshot: Snapshot) -> Coordinator:
        return Coordinator(snapshot, self.journal, self._settings, clock=self.clock, entropy=self.random.randbytes)

    def restart(self) -> None:
        """Another process on what was committed."""
        self.coordinator = self._coordinator(self.coordinator.ledger.snapshot)
        self.admin = self.coordinator.admin

    async def auth_key(self, user: str = "alice", **facts: Any) -> str:
        """A pre-auth key (and its user when missing); reusable unless told otherwise."""
        if user and self.admin.snapshot.user_named(user) is None:
            await self.admin.create_user(user)
        facts = {"reusable": True, "lifetime_s": 3600.0, **facts}
        _, key = await self.admin.create_auth_key(user=user, **facts)
        return key

    def machine(self, hostname: str = "box") -> Machine:
        return Machine(self, hostname)


class Machine:
    """A client machine with its keys, and what it says."""

    def __init__(self, world: World, hostname: str) -> None:
        self.world = world
        self.machine = MachinePublic(world.random.randbytes(32))
        self.key = NodePublic(world.random.randbytes(32))
        self.disco = DiscoPublic(world.random.randbytes(32))
        self.hostinfo = Hostinfo(os="linux", hostname=hostname)

    def new_key(self) -> None:
        self.key = NodePublic(self.world.random.randbytes(32))

    async def register(self, auth_key: str = "", **fields: Any) -> RegisterResponse:
        request = RegisterRequest(
            version=CAPABILITY_VERSION,
            node_key=str(self.key),
            hostinfo=self.hostinfo,
            auth=RegisterAuth(auth_key=auth_key) if auth_key else None,
            **fields,
        )
        return await self.world.coordinator.register(self.machine, request)

    def advertise(self, *routes: str) -> None:
        """Offer routes from the next register on."""
        self.hostinfo = msgspec.structs.replace(self.hostinfo, routable_ips=list(routes))

    async def join(self, auth_key: str) -> int:
        """Register by key; the node's id. The refusal is the assertion's message."""
        response = await self.register(auth_key)
        assert response.machine_authorized, response.error
        return self.node_id()

    def node_id(self) -> int:
        node = self.world.admin.snapshot.node_of_key(self.key)
        assert node is not None
        return node.id

    def map_request(self, **fields: Any) -> MapRequest:
        return MapRequest(version=CAPABILITY_VERSION, node_key=str(self.key), disco_key=str(self.disco), **fields)

    async def update(self, endpoints: list[str], *, derp: int = 0) -> None:
        """A lite update."""
        hostinfo = msgspec.structs.replace(self.hostinfo, net_info=NetInfo(preferred_derp=derp)) if derp else None
        request = self.map_request(omit_peers=True, endpoints=endpoints, hostinfo=hostinfo)
        await self.world.coordinator.update(self.machine, request)

    async def open(self) -> Netmap:
        stream = await self.world.coordinator.open_map(self.machine, self.map_request(stream=True))
        return Netmap(stream)


def messages(framed: bytes) -> list[dict[str, Any]]:
    """The map messages in bytes from the server."""
    found = []
    while framed:
        (length,) = struct.unpack_from("<I", framed)
        found.append(msgspec.json.decode(zstd.decompress(framed[4 : 4 + length]), type=dict[str, Any]))
        framed = framed[4 + length :]
    return found


class Netmap:
    """A stream's reader that applies messages in the order of Tailscale's client (wire reference 1a)."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.node: dict[str, Any] = {}
        self.peers: dict[int, dict[str, Any]] = {}
        self.users: dict[int, dict[str, Any]] = {}
        self.derp_map: dict[str, Any] = {}
        self.filters: dict[str, Any] = {}
        self.ssh: dict[str, Any] = {}
        self.strays = 0  # patches of peers that it was never told of
        self.raw: list[bytes] = []
        self.messages: list[dict[str, Any]] = []

    async def read(self) -> dict[str, Any]:
        """Wait for the next message and apply it."""
        raw = await self.stream.next()
        self.raw.append(raw)
        (message,) = messages(raw)
        self.messages.append(message)
        self.apply(message)
        return message

    async def read_all(self) -> int:
        """Apply what is there without waiting for more; how many messages that was."""
        count = 0
        while True:
            step = asyncio.ensure_future(self.stream.next())
            await asyncio.sleep(0)
            if not step.done():
                step.cancel()
                return count
            raw = step.result()
            self.raw.append(raw)
            for message in messages(raw):
                self.messages.append(message)
                self.apply(message)
            count += 1

    def apply(self, message: dict[str, Any]) -> None:
        if message.get("KeepAlive"):
            return
        self.node = message.get("Node") or self.node
        self.derp_map = message.get("DERPMap") or self.derp_map
        self.ssh = message.get("SSHPolicy") or self.ssh
        self._apply_filters(message.get("PacketFilters") or {})
        for user in message.get("UserProfiles") or ():
            self.users[user["ID"]] = user
        if message.get("Peers"):
            self.peers = {peer["ID"]: peer for peer in message["Peers"]}
        else:
            self._apply_changes(message)

    def _apply_filters(self, patch: dict[str, Any]) -> None:
        """Named filters: `"*": null` clears all, a null entry deletes its name."""
        if "*" in patch:
            assert patch["*"] is None
            self.filters = {}
        for name, rules in patch.items():
            if rules is None:
                self.filters.pop(name, None)
            else:
                self.filters[name] = rules

    def _apply_changes(self, message: dict[str, Any]) -> None:
        for node_id in message.get("PeersRemoved") or ():
            self.strays += self.peers.pop(node_id, None) is None
        for peer in message.get("PeersChanged") or ():
            self.peers[peer["ID"]] = peer
        for patch in message.get("PeersChangedPatch") or ():
            peer = self.peers.get(patch.pop("NodeID"))
            if peer is None:
                self.strays += 1
                continue
            for name, value in patch.items():
                if value is not False and value in (None, 0, []):
                    continue  # only non-zero members apply; Online is a pointer upstream, so its false is a word too
                peer["HomeDERP" if name == "DERPRegion" else name] = value

    def view(self) -> dict[str, Any]:
        """All that it knows, to compare with another's: a peer's last-seen time counts only while it is offline."""
        peers = {}
        for node_id, peer in self.peers.items():
            shown = dict(peer)
            if shown.get("Online"):
                shown.pop("LastSeen", None)
            peers[node_id] = shown
        return {
            "node": self.node,
            "peers": peers,
            "derp_map": self.derp_map,
            "filters": self.filters,
            "ssh": self.ssh,
        }
