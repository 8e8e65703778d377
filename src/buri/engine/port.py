"""What Python needs of a packet engine: tables in, events out. The binary and `fake.py` both satisfy it.

Orders are values, applied whole between two packet batches, in the order given: a switch is atomic without a lock.
Events come back bounded and counted; when the queue is full the oldest datagram event is dropped and counted, the others
never are. `fileno()` is readable while events wait. No method blocks on the network.

Paths. A peer's `Path` says where its packets go now: by UDP (trusted: that alone), by a relay, or by both (an UDP address
that is not trusted yet, and the relay beside it). With neither, the engine raises `PeerActive`, so that the path machine
wakes up, and keeps the first packets for the handshake (16 a peer); with a session they are dropped and counted. A path
that opens a way where none was tries a handshake that waits at once. The engine never moves a path by itself.

WireGuard, its keys' use, and DERP connections live below this line; disco and STUN datagrams cross it as they came.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from buri.core.addresses import AddrPort, IPAddress, IPNetwork
from buri.core.keys import NodePrivate, NodePublic

# ---- configuration ---------------------------------------------------------------------------------------------


class Offloads(msgspec.Struct, frozen=True):
    """One switch per kernel offload; each has a fallback, also at run time."""

    tun_tso: bool = True
    tun_uso: bool = True
    tun_gro: bool = True  # coalesce towards the TUN device
    udp_gso: bool = True
    udp_gro: bool = True


class EngineConfig(msgspec.Struct, frozen=True):
    """What an engine is started with.

    `tun_name` None means no TUN device (a node that only relays or is tested). `udp_port` 0 means any; when the port is
    taken the next free one above it is bound, the same for IPv4 and IPv6. `mark` is SO_MARK for every socket of the
    engine, 0 for none.
    """

    private_key: NodePrivate
    tun_name: str | None = "buri0"
    mtu: int = 1280
    udp_port: int = 41641
    mark: int = 0
    offloads: Offloads = Offloads()
    spin_us: int = 50
    event_capacity: int = 1024


# ---- orders ----------------------------------------------------------------------------------------------------


class Peer(msgspec.Struct, frozen=True):
    """A WireGuard peer: longest prefix of all `allowed_ips` decides where an inner packet goes, and what may come."""

    key: NodePublic
    allowed_ips: tuple[IPNetwork, ...]


class SetPrivateKey(msgspec.Struct, frozen=True, tag=True):
    """Change our node key: every session and handshake ends."""

    key: NodePrivate


class SetPeers(msgspec.Struct, frozen=True, tag=True):
    """The whole table of peers; those already there keep their sessions and paths."""

    peers: tuple[Peer, ...]


class UpsertPeer(msgspec.Struct, frozen=True, tag=True):
    peer: Peer


class RemovePeer(msgspec.Struct, frozen=True, tag=True):
    key: NodePublic


class SetPath(msgspec.Struct, frozen=True, tag=True):
    """Where packets to `key` go from now on; see the module's words on paths. `gso` False: no GSO and no DF there."""

    key: NodePublic
    udp: AddrPort | None = None
    relay_region: int | None = None
    gso: bool = True


class PortRange(msgspec.Struct, frozen=True):
    first: int
    last: int


class FilterRule(msgspec.Struct, frozen=True):
    """Accept packets from any of `sources` to any of `destinations` on `ports` by one of `protocols` (IP numbers).

    Semantics are Tailscale's client filter (wire reference 1f): only new flows need a rule.
    """

    sources: tuple[IPNetwork, ...]
    destinations: tuple[IPNetwork, ...]
    ports: tuple[PortRange, ...]
    protocols: tuple[int, ...]


class SetFilter(msgspec.Struct, frozen=True, tag=True):
    """The whole inbound filter. `local` are the prefixes this node may be addressed by (own addresses, routes it serves)."""

    local: tuple[IPNetwork, ...]
    rules: tuple[FilterRule, ...]
    shields_up: bool = False


class ConnectRelay(msgspec.Struct, frozen=True, tag=True):
    """Open (or reopen) the connection to a region's relay; the answer is `RelayUp` or `RelayDown`.

    `addresses` are tried in order. `server_name` goes into SNI and HTTP Host. `certificate`: "" = verify by the system's
    roots against `server_name`; "sha256-raw:<hex>" = pin of the leaf; other text = verify against this name instead;
    `insecure` skips verification; `plain` speaks HTTP without TLS (tests only).
    """

    region: int
    addresses: tuple[IPAddress, ...]
    port: int
    server_name: str
    certificate: str = ""
    insecure: bool = False
    plain: bool = False
    preferred: bool = False


class PreferRelay(msgspec.Struct, frozen=True, tag=True):
    """Tell a connected relay whether it is our home (DERP NotePreferred)."""

    region: int
    preferred: bool


class CloseRelay(msgspec.Struct, frozen=True, tag=True):
    region: int


class SendUDP(msgspec.Struct, frozen=True, tag=True):
    """Send one datagram (disco, STUN) from the WireGuard socket of that family; `whole`: with DF."""

    address: AddrPort
    data: bytes
    whole: bool = True


class SendRelay(msgspec.Struct, frozen=True, tag=True):
    """Send one packet (disco) to `key` through a connected region's relay; dropped and counted when not connected."""

    region: int
    key: NodePublic
    data: bytes


class Rebind(msgspec.Struct, frozen=True, tag=True):
    """Close and reopen the UDP sockets (the network changed); the same port when possible. Answer: `Bound`."""


Order = (
    SetPrivateKey
    | SetPeers
    | UpsertPeer
    | RemovePeer
    | SetPath
    | SetFilter
    | ConnectRelay
    | PreferRelay
    | CloseRelay
    | SendUDP
    | SendRelay
    | Rebind
)

# ---- events ----------------------------------------------------------------------------------------------------


class Bound(msgspec.Struct, frozen=True, tag=True):
    """The UDP port in use (None for a family the host lacks)."""

    port_ipv4: int | None
    port_ipv6: int | None


class DiscoIn(msgspec.Struct, frozen=True, tag=True):
    """A disco datagram by UDP (`source`) or by a relay (`region`, `relay_key` = the sender's node key)."""

    data: bytes
    source: AddrPort | None = None
    region: int = 0
    relay_key: NodePublic | None = None


class STUNIn(msgspec.Struct, frozen=True, tag=True):
    source: AddrPort
    data: bytes


class PeerActive(msgspec.Struct, frozen=True, tag=True):
    """The tailnet sends to this peer: at the first packet after a silence of 1 s, then at most once a second."""

    key: NodePublic


class HandshakeDone(msgspec.Struct, frozen=True, tag=True):
    key: NodePublic


class HandshakeFailed(msgspec.Struct, frozen=True, tag=True):
    """90 s of tries without an answer (WireGuard's REKEY_ATTEMPT_TIME); staged packets were dropped."""

    key: NodePublic


class PathFault(msgspec.Struct, frozen=True, tag=True):
    """Sending to a peer's UDP address failed (unreachable host or network, message too long); `errno` says how."""

    key: NodePublic
    address: AddrPort
    errno: int


class RelayUp(msgspec.Struct, frozen=True, tag=True):
    region: int
    server_key: NodePublic


class RelayDown(msgspec.Struct, frozen=True, tag=True):
    """A relay connection could not be opened or ended; `reason` is one phrase for a person."""

    region: int
    reason: str


class RelayPeerGone(msgspec.Struct, frozen=True, tag=True):
    """A relay says this peer is not there (`here` False: never was; True: it left)."""

    region: int
    key: NodePublic
    was_here: bool


class RelayPeerSeen(msgspec.Struct, frozen=True, tag=True):
    """WireGuard from this peer came through this region: a way back to it. Once per peer and region until gone."""

    region: int
    key: NodePublic


class RelayHealth(msgspec.Struct, frozen=True, tag=True):
    region: int
    problem: str  # empty = healthy


class Fatal(msgspec.Struct, frozen=True, tag=True):
    """The engine stopped; `reason` says why (TUN device gone, a bug)."""

    reason: str


Event = (
    Bound
    | DiscoIn
    | STUNIn
    | PeerActive
    | HandshakeDone
    | HandshakeFailed
    | PathFault
    | RelayUp
    | RelayDown
    | RelayPeerGone
    | RelayPeerSeen
    | RelayHealth
    | Fatal
)

# ---- counters --------------------------------------------------------------------------------------------------


class PeerStats(msgspec.Struct, frozen=True):
    """Counters of one peer; ages in seconds, None for never."""

    key: NodePublic
    rx_bytes: int
    tx_bytes: int
    handshake_age_s: float | None
    rx_age_s: float | None
    tx_age_s: float | None


class EngineStats(msgspec.Struct, frozen=True):
    """All peers, and named counters (packets, drops by reason, offload fallbacks)."""

    peers: tuple[PeerStats, ...]
    counters: dict[str, int]


class Engine(Protocol):
    """A running engine."""

    def apply(self, orders: Sequence[Order]) -> None:
        """Hand over a batch; returns once it is queued. Raises core.errors.StateError after `close` or `Fatal`."""

    def poll_events(self, limit: int = 256) -> list[Event]:
        """Take up to `limit` waiting events, oldest first."""

    def fileno(self) -> int:
        """A descriptor that is readable while events wait."""

    def stats(self) -> EngineStats:
        """A consistent copy of the counters (waits at most one batch)."""

    def close(self) -> None:
        """Flush, close relays, drop the TUN device last. Safe to call twice."""
