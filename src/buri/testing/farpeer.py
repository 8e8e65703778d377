"""The other end of disco, made by hand: opens what a machine sends, and seals what a test wants it to hear."""

from __future__ import annotations

from random import Random

from nacl.bindings import crypto_box_afternm

from buri.core.addresses import AddrPort
from buri.core.keys import DiscoPrivate, DiscoPublic, NodePrivate
from buri.machine.paths.values import PeerPathInfo, SendRelay, SendUDP
from buri.wire import disco


class FarPeer:
    """A peer that says what it is told to."""

    def __init__(self, rng: Random, towards: DiscoPublic) -> None:
        self._rng = rng
        self.key = NodePrivate.from_entropy(rng.randbytes(32)).public()
        self.private = DiscoPrivate.from_entropy(rng.randbytes(32))
        self.disco_key = self.private.public()
        self._shared = disco.shared_key(self.private, towards)

    def info(self, *endpoints: AddrPort, home_region: int = 1) -> PeerPathInfo:
        """What a netmap tells of it."""
        return PeerPathInfo(self.key, self.disco_key, endpoints, home_region)

    def seal(self, message: disco.Message) -> bytes:
        nonce = self._rng.randbytes(disco.NONCE_BYTES)
        return disco.seal_datagram(message, sender=self.disco_key, shared=self._shared, nonce=nonce)

    def seal_bytes(self, plain: bytes) -> bytes:
        """A box with anything at all inside."""
        nonce = self._rng.randbytes(disco.NONCE_BYTES)
        return disco.MAGIC + self.disco_key.raw + nonce + crypto_box_afternm(plain, nonce, self._shared)

    def open(self, sent: SendUDP | SendRelay) -> disco.Message:
        return disco.open_datagram(sent.data, self._shared)

    def ping(self) -> bytes:
        """A sealed ping of its own."""
        return self.seal(disco.Ping(self._rng.randbytes(disco.TXID_BYTES), self.key))

    def pong_to(self, sent: SendUDP | SendRelay, seen_from: AddrPort) -> bytes:
        """The sealed answer to a ping that was sent. Raises AssertionError when it is no ping."""
        message = self.open(sent)
        assert isinstance(message, disco.Ping), message
        return self.seal(disco.Pong(message.txid, seen_from))
