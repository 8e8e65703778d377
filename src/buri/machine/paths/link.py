"""What every peer's paths share: our disco identity, the boxes with each peer, and the queues out.

Nothing is sealed before `set_self` gave a key: what would go out until then is dropped, as on a node that is not up.
"""

from __future__ import annotations

from collections import deque

from buri.core.addresses import AddrPort
from buri.core.errors import WireError
from buri.core.keys import DiscoPrivate, DiscoPublic, NodePublic
from buri.machine.contract import Randomness
from buri.machine.paths.limits import RELAY_IN_USE_EVERY_S
from buri.machine.paths.values import PathEvent, RelayInUse, SendRelay, SendUDP, Transmit
from buri.wire import disco


class DiscoLink:
    """Seals, opens and queues."""

    def __init__(self, rng: Randomness) -> None:
        self.rng = rng
        self.node_key: NodePublic | None = None
        self.disco_key: DiscoPublic | None = None
        self.transmits: deque[Transmit] = deque()
        self.events: deque[PathEvent] = deque()
        self.counters: dict[str, int] = {}
        self.relays_up: set[int] = set()  # asked for membership only
        self._private: DiscoPrivate | None = None
        self._shared: dict[DiscoPublic, bytes | None] = {}
        self._relay_said_at: dict[int, float] = {}

    def set_identity(self, node_key: NodePublic, private: DiscoPrivate) -> None:
        self.node_key = node_key
        if self._private is None or self._private != private:
            self._shared.clear()
        self._private = private
        self.disco_key = private.public()

    def forget(self, peer: DiscoPublic) -> None:
        """Drop the box with a disco key that is no longer a peer's."""
        self._shared.pop(peer, None)

    def count(self, name: str) -> None:
        self.counters[name] = self.counters.get(name, 0) + 1

    def open(self, datagram: bytes, sender: DiscoPublic) -> disco.Message | None:
        """The message inside, None (counted) when it does not open or parse."""
        shared = self._shared_with(sender)
        if shared is None:
            return None
        try:
            return disco.open_datagram(datagram, shared)
        except WireError:
            self.count("disco_bad")
            return None

    def send_udp(self, message: disco.Message, peer: DiscoPublic, address: AddrPort, *, whole: bool = True) -> None:
        sealed = self._seal(message, peer)
        if sealed is not None:
            self.transmits.append(SendUDP(address, sealed, whole))

    def send_relay(self, message: disco.Message, peer: DiscoPublic, key: NodePublic, region: int, now: float) -> None:
        sealed = self._seal(message, peer)
        if sealed is not None:
            self.transmits.append(SendRelay(region, key, sealed))
            self.use_relay(region, now)

    def use_relay(self, region: int, now: float) -> None:
        """Tell the layer above that this region is wanted, not too often."""
        said_at = self._relay_said_at.get(region)
        if said_at is None or now - said_at >= RELAY_IN_USE_EVERY_S:
            self._relay_said_at[region] = now
            self.events.append(RelayInUse(region))

    def can_reach(self, peer: DiscoPublic) -> bool:
        """Whether a message to this disco key can be sealed: we have an identity, and the key is a possible one."""
        return self.node_key is not None and self._shared_with(peer) is not None

    def _seal(self, message: disco.Message, peer: DiscoPublic) -> bytes | None:
        shared = self._shared_with(peer)
        if shared is None or self.disco_key is None:
            return None
        nonce = self.rng.randbytes(disco.NONCE_BYTES)
        return disco.seal_datagram(message, sender=self.disco_key, shared=shared, nonce=nonce)

    def _shared_with(self, peer: DiscoPublic) -> bytes | None:
        if self._private is None or not peer:
            return None
        if peer not in self._shared:
            try:
                self._shared[peer] = disco.shared_key(self._private, peer)
            except WireError:
                self.count("disco_bad_key")
                self._shared[peer] = None
        return self._shared[peer]
