"""What Python needs of the front door: the public TCP listeners of a server or relay, with its DERP relay and STUN.

Rust owns the sockets. First byte 0x16 = TLS, else plain. `/derp`, `/derp/probe`, `/derp/latency-check`, `/generate_204`
and `/robots.txt` are answered there; any other connection goes whole (head included) to the Unix socket `handoff`, behind
a PROXY v2 header whose TLS fact is the PP2_TYPE_SSL TLV (client byte 0x01 when TLS, TLV absent when plain).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from buri.core.addresses import AddrPort
from buri.core.keys import NodePublic


class Certificate(msgspec.Struct, frozen=True):
    """A chain and its key, PEM."""

    chain_pem: bytes
    key_pem: bytes


class FrontConfig(msgspec.Struct, frozen=True):
    """What a front door is started with.

    `relay_key` is the DERP server's private key (32 bytes), None for no relay (then `/derp` answers 404). `certificate`
    None: plain only. `handoff` None: what is not answered here gets 404. STUN answers on every address of `stun`; port
    p there and p+1 are two entries, given by the caller.
    """

    listen: tuple[AddrPort, ...]
    stun: tuple[AddrPort, ...] = ()
    certificate: Certificate | None = None
    relay_key: bytes | None = None
    handoff: str | None = None


class FrontStats(msgspec.Struct, frozen=True):
    """Named counters and gauges (derper's expvar names where they mean the same)."""

    counters: dict[str, int]
    clients: tuple[NodePublic, ...]


class FrontDoor(Protocol):
    """A running front door. Raises core.errors.InUseError or NotPermittedError when a socket cannot be bound."""

    def listening(self) -> tuple[AddrPort, ...]:
        """The TCP addresses really bound (port 0 resolved)."""

    def stun_listening(self) -> tuple[AddrPort, ...]: ...

    def set_certificate(self, certificate: Certificate) -> None:
        """Swap the certificate; open connections keep theirs."""

    def admit_all(self) -> None:
        """Let every node key use the relay."""

    def admit(self, keys: Sequence[NodePublic]) -> None:
        """Let only these node keys use the relay from now on; clients with another key are closed."""

    def stats(self) -> FrontStats: ...

    def close(self) -> None: ...
