"""The words the path machines speak: what they are told, what they send, and what they say.

`SendUDP` and `SendRelay` become the engine's orders of the same names, `PathChosen` becomes its `SetPath` (same
fields); the machine room may not import the engine's, so the shell copies field by field.
"""

from __future__ import annotations

import enum

import msgspec

from buri.core.addresses import AddrPort
from buri.core.keys import DiscoPublic, NodePublic


class EndpointType(enum.IntEnum):
    """How one of our own addresses was found; the numbers are MapRequest.EndpointTypes."""

    UNKNOWN = 0
    LOCAL = 1
    STUN = 2
    PORT_MAPPED = 3
    STUN_LOCAL_PORT = 4
    EXPLICIT = 5


class LocalEndpoint(msgspec.Struct, frozen=True):
    """An address at which this node may be reachable."""

    address: AddrPort
    type: EndpointType


class PeerPathInfo(msgspec.Struct, frozen=True):
    """What the netmap says of a peer's reachability.

    `disco_key` zero: the peer cannot do disco (it stays on its relay). `home_region` 0: it has no relay.
    `hard_nat` is its NetInfo.MappingVariesByDestIP, None when unknown; it only words the reason in `PathInfo`.
    `cuts` False: as far as is known a node of another make, which keeps sending whole packets where none pass.
    """

    key: NodePublic
    disco_key: DiscoPublic
    endpoints: tuple[AddrPort, ...] = ()
    home_region: int = 0
    hard_nat: bool | None = None
    cuts: bool = True


# ---- what the machine sends ------------------------------------------------------------------------------------


class SendUDP(msgspec.Struct, frozen=True, tag=True):
    """One disco or STUN datagram to `address`; `whole`: with DF, else it may be cut on its way."""

    address: AddrPort
    data: bytes
    whole: bool = True


class SendRelay(msgspec.Struct, frozen=True, tag=True):
    """One disco datagram to the node `key` through the relay of `region`."""

    region: int
    key: NodePublic
    data: bytes


Transmit = SendUDP | SendRelay

# ---- what the machine says -------------------------------------------------------------------------------------


class PathChosen(msgspec.Struct, frozen=True, tag=True):
    """Where packets to `key` go from now on: becomes the engine's SetPath at once, in the order the events come.

    Trusted: by `udp` alone. Not trusted: by both. `gso` False: no GSO and no DF to that address. `reason` is a few
    words for a log.
    """

    key: NodePublic
    udp: AddrPort | None
    relay_region: int | None
    trusted: bool
    gso: bool
    reason: str


class NeedEndpoints(msgspec.Struct, frozen=True, tag=True):
    """Our own endpoints are older than 27 s and a peer is about to be told them: run STUN, then `set_local_endpoints`.

    Said once until `set_local_endpoints` answers (an unchanged list answers too) or 3 s have passed.
    """


class RelayInUse(msgspec.Struct, frozen=True, tag=True):
    """This region carries something to a peer now: keep it connected (`RelayManager.use`). Every 5 s at most."""

    region: int


class PingDone(msgspec.Struct, frozen=True, tag=True):
    """The end of one `ping()`: by `endpoint`, or by the relay `region`, after `latency_s`; or `error` says why not.

    `lost`: nothing came back this time, but the next ping may do better.
    """

    request: int
    key: NodePublic
    latency_s: float = 0.0
    endpoint: AddrPort | None = None
    region: int = 0
    error: str = ""
    lost: bool = False


PathEvent = PathChosen | NeedEndpoints | RelayInUse | PingDone

# ---- what status asks ------------------------------------------------------------------------------------------


class PathInfo(msgspec.Struct, frozen=True):
    """A peer's path as `status` shows it.

    `address` is the direct address in use (None: relayed), `latency_s` its last measured round trip. `relay_region` is
    the peer's relay (0: none). `active`: used within the last 45 s. `why_relayed` is "" when direct, else a few words.
    """

    key: NodePublic
    address: AddrPort | None
    latency_s: float | None
    relay_region: int
    active: bool
    why_relayed: str
