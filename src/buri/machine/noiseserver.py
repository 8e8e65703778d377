"""The server's half of a control connection's Noise layer: an initiation taken, a response given, records both ways."""

from __future__ import annotations

from buri.core.errors import StateError, WireError
from buri.core.keys import KEY_BYTES, MachinePrivate, MachinePublic
from buri.wire.noise import (
    RECORD,
    RESPONSE,
    TAG_BYTES,
    Agreement,
    Direction,
    Handshake,
    MessageReader,
    build_message,
    parse_initiation,
)


class NoiseServer:
    """One connection's; `ephemeral` must be fresh for each. After `accept`, `machine` and `version` are the client's.

    `private` is the server's own key, made ready once for all connections.
    """

    def __init__(self, private: Agreement, ephemeral: MachinePrivate) -> None:
        self._private = private
        self._ephemeral = ephemeral
        self._reader = MessageReader()
        self._send: Direction | None = None
        self._receive: Direction | None = None
        self.machine = MachinePublic.zero()
        self.version = 0

    def accept(self, initiation: bytes) -> bytes:
        """Take the client's first message, return our response; raises WireError."""
        self.version, body = parse_initiation(initiation)
        private, ephemeral = self._private, Agreement(self._ephemeral)
        state = Handshake(self.version, private.public)
        theirs = body[:KEY_BYTES]
        state.mix_hash(theirs)
        end = KEY_BYTES + KEY_BYTES + TAG_BYTES
        machine = state.open(private.agree(theirs), body[KEY_BYTES:end])
        state.open(private.agree(machine), body[end:])
        own = ephemeral.public
        state.mix_hash(own)
        state.mix_key(ephemeral.agree(theirs))
        answer = own + state.seal(ephemeral.agree(machine), b"")
        self._receive, self._send = state.split()
        self.machine = MachinePublic(machine)
        return build_message(RESPONSE, answer)

    def receive(self, data: bytes) -> bytes:
        """Take bytes off the wire, return the plaintext they complete; raises WireError."""
        if self._receive is None:
            raise StateError("The Noise handshake is not done.")
        plain = bytearray()
        for kind, body in self._reader.feed(data):
            if kind != RECORD:
                raise WireError(f"The client sent a Noise message of type {kind} after the handshake.")
            plain += self._receive.open(body)
        return bytes(plain)

    def seal(self, data: bytes) -> bytes:
        """Records that carry `data`; raises StateError before the handshake is done."""
        if self._send is None:
            raise StateError("The Noise handshake is not done.")
        return self._send.records(data)
