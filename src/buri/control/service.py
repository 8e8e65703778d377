"""What the noise front needs of the control server's domain: the seam between bytes and truth.

The front (HTTP, Noise, HTTP/2, framing of requests) knows only this Protocol; the domain behind it owns users, nodes,
keys, snapshot, mapper and store. Every call that changes something returns after its commit.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from buri.core.keys import MachinePublic, NodePublic
from buri.wire.tailcfg.mapping import MapRequest
from buri.wire.tailcfg.register import RegisterRequest, RegisterResponse


class PendingLogin(msgspec.Struct, frozen=True):
    """A node that waits for a person: what its login page shows. `source`: the network address that asks.

    `approved`: it has joined a short while ago, under `node_name`, which is then set.
    """

    code: str
    hostname: str
    os: str
    machine: MachinePublic
    node_key: NodePublic
    approved: bool
    os_version: str = ""
    source: str = ""
    node_name: str = ""


class MapStream(Protocol):
    """One node's open map poll. The newest stream of a node replaces the older one."""

    async def next(self) -> bytes:
        """Wait for something to say and return it as framed map messages ([LE32 length][zstd] one or more).

        Whatever piled up since the last call is merged for this receiver. Keepalives come from here too. Raises
        StopAsyncIteration when the stream has ended (replaced, node deleted, server closing).
        """

    def close(self) -> None:
        """The client went away. Safe to call twice."""


class ControlService(Protocol):
    """The domain, as the front sees it."""

    async def register(self, machine: MachinePublic, request: RegisterRequest, source: str = "") -> RegisterResponse:
        """Answer a registration, a logout or a follow-up from the address `source`; a follow-up waits for its login's end.

        A refusal that the user must read comes as `RegisterResponse.error`; a malformed request raises WireError.
        """

    async def update(self, machine: MachinePublic, request: MapRequest) -> None:
        """Take a lite update (Stream false, OmitPeers true). Raises RefusedError for another machine's key."""

    async def full_map(self, machine: MachinePublic, request: MapRequest) -> bytes:
        """One framed full map (Stream false, OmitPeers false). Raises RefusedError likewise."""

    async def open_map(self, machine: MachinePublic, request: MapRequest) -> MapStream:
        """Begin a stream. Raises RefusedError likewise."""

    def pending_login(self, code: str) -> PendingLogin | None:
        """The login a code belongs to; None when unknown or over."""
