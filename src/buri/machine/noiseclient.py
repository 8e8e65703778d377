"""The client's half of a control connection's Noise layer: bytes off the wire to plaintext, and back."""

from __future__ import annotations

from buri.core.errors import RefusedError, StateError, WireError
from buri.core.keys import KEY_BYTES, MachinePrivate, MachinePublic
from buri.wire.noise import (
    ERROR,
    RECORD,
    RESPONSE,
    RESPONSE_BODY_BYTES,
    Agreement,
    Direction,
    Handshake,
    MessageReader,
    build_initiation,
)


class NoiseClient:
    """One connection's; `ephemeral` must be fresh for each."""

    def __init__(self, machine: MachinePrivate, server: MachinePublic, version: int, ephemeral: MachinePrivate) -> None:
        self._machine = Agreement(machine)
        self._server = server
        self._version = version
        self._ephemeral = Agreement(ephemeral)
        self._state = Handshake(version, server.raw)
        self._reader = MessageReader()
        self._send: Direction | None = None
        self._receive: Direction | None = None

    @property
    def established(self) -> bool:
        """Whether the server's response was taken."""
        return self._send is not None

    def initiation(self) -> bytes:
        """The first message, 101 bytes; once."""
        own = self._ephemeral.public
        self._state.mix_hash(own)
        body = own + self._state.seal(self._ephemeral.agree(self._server.raw), self._machine.public)
        body += self._state.seal(self._machine.agree(self._server.raw), b"")
        return build_initiation(self._version, body)

    def receive(self, data: bytes) -> bytes:
        """Take bytes off the wire, return the plaintext they complete; raises WireError or RefusedError."""
        plain = bytearray()
        for kind, body in self._reader.feed(data):
            plain += self._take(kind, body)
        return bytes(plain)

    def seal(self, data: bytes) -> bytes:
        """Records that carry `data`; raises StateError before the handshake is done."""
        if self._send is None:
            raise StateError("The Noise handshake is not done.")
        return self._send.records(data)

    def _take(self, kind: int, body: bytes) -> bytes:
        if kind == RECORD and self._receive is not None:
            return self._receive.open(body)
        if kind == RESPONSE and self._receive is None and len(body) == RESPONSE_BODY_BYTES:
            self._finish(body)
            return b""
        if kind == ERROR and self._receive is None:
            text = body.decode("utf-8", "replace")[:200]
            raise RefusedError(f"The control server refused the handshake: {text}.")
        raise WireError(f"The control server sent a Noise message of type {kind} out of turn.")

    def _finish(self, body: bytes) -> None:
        theirs = body[:KEY_BYTES]
        self._state.mix_hash(theirs)
        self._state.mix_key(self._ephemeral.agree(theirs))
        self._state.open(self._machine.agree(theirs), body[KEY_BYTES:])
        self._send, self._receive = self._state.split()
