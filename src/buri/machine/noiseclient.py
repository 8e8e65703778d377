"""The client's half of a control connection's Noise layer: bytes off the wire to plaintext, and back.

Noise_IK_25519_ChaChaPoly_BLAKE2s with Tailscale's prologue and framing (wire reference 1a, "Noise"). Handshake keys are
used once, with a zero nonce; record nonces are four zero bytes and a big-endian counter, one for each direction.
"""

from __future__ import annotations

import hashlib
import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from buri.core.errors import RefusedError, StateError, WireError
from buri.core.keys import KEY_BYTES, MachinePrivate, MachinePublic

PATTERN = b"Noise_IK_25519_ChaChaPoly_BLAKE2s"
PROLOGUE = b"Tailscale Control Protocol v%d"
INITIATION, RESPONSE, ERROR, RECORD = 1, 2, 3, 4
HEADER_BYTES = 3
TAG_BYTES = 16
RESPONSE_BYTES = KEY_BYTES + TAG_BYTES
MAX_CIPHERTEXT_BYTES = 4096 - HEADER_BYTES
MAX_PLAINTEXT_BYTES = MAX_CIPHERTEXT_BYTES - TAG_BYTES
_ZERO_NONCE = bytes(12)


class NoiseClient:
    """One connection's; `ephemeral` must be fresh for each."""

    def __init__(self, machine: MachinePrivate, server: MachinePublic, version: int, ephemeral: MachinePrivate) -> None:
        self._machine = machine
        self._server = server
        self._version = version
        self._ephemeral = ephemeral
        self._hash = self._chain = hashlib.blake2s(PATTERN).digest()
        self._buffer = bytearray()
        self._send: _Direction | None = None
        self._receive: _Direction | None = None

    @property
    def established(self) -> bool:
        """Whether the server's response was taken."""
        return self._send is not None

    def initiation(self) -> bytes:
        """The first message, 101 bytes; once."""
        own = self._ephemeral.public().raw
        for part in (PROLOGUE % self._version, self._server.raw, own):
            self._mix_hash(part)
        body = own + self._seal(self._agree(self._ephemeral, self._server.raw), self._machine.public().raw)
        body += self._seal(self._agree(self._machine, self._server.raw), b"")
        return self._version.to_bytes(2, "big") + bytes((INITIATION,)) + len(body).to_bytes(2, "big") + body

    def receive(self, data: bytes) -> bytes:
        """Take bytes off the wire, return the plaintext they complete; raises WireError or RefusedError."""
        self._buffer += data
        plain = bytearray()
        while len(self._buffer) >= HEADER_BYTES:
            kind, length = self._buffer[0], int.from_bytes(self._buffer[1:HEADER_BYTES], "big")
            if length > MAX_CIPHERTEXT_BYTES:
                raise WireError(f"The control server sent a record of {length} bytes.")
            end = HEADER_BYTES + length
            if len(self._buffer) < end:
                break
            body = bytes(self._buffer[HEADER_BYTES:end])
            del self._buffer[:end]
            try:
                plain += self._take(kind, body)
            except InvalidTag as error:
                raise WireError("The control server proved no knowledge of its key.") from error
        return bytes(plain)

    def seal(self, data: bytes) -> bytes:
        """Records that carry `data`; raises StateError before the handshake is done."""
        if self._send is None:
            raise StateError("The Noise handshake is not done.")
        records = bytearray()
        for at in range(0, len(data), MAX_PLAINTEXT_BYTES):
            sealed = self._send.seal(data[at : at + MAX_PLAINTEXT_BYTES])
            records += bytes((RECORD,)) + len(sealed).to_bytes(2, "big") + sealed
        return bytes(records)

    def _take(self, kind: int, body: bytes) -> bytes:
        if kind == RECORD and self._receive is not None:
            return self._receive.open(body)
        if kind == RESPONSE and self._receive is None and len(body) == RESPONSE_BYTES:
            self._finish(body)
            return b""
        if kind == ERROR and self._receive is None:
            text = body.decode("utf-8", "replace")[:200]
            raise RefusedError(f"The control server refused the handshake: {text}.")
        raise WireError(f"The control server sent a Noise message of type {kind} out of turn.")

    def _finish(self, body: bytes) -> None:
        theirs = body[:KEY_BYTES]
        self._mix_hash(theirs)
        self._mix_key(self._agree(self._ephemeral, theirs))
        key = self._mix_key(self._agree(self._machine, theirs))
        ChaCha20Poly1305(key).decrypt(_ZERO_NONCE, body[KEY_BYTES:], self._hash)
        send, receive = _expand(self._chain, b"")
        self._send, self._receive = _Direction(send), _Direction(receive)

    def _mix_hash(self, data: bytes) -> None:
        self._hash = hashlib.blake2s(self._hash + data).digest()

    def _mix_key(self, secret: bytes) -> bytes:
        self._chain, key = _expand(self._chain, secret)
        return key

    def _seal(self, secret: bytes, plain: bytes) -> bytes:
        sealed = ChaCha20Poly1305(self._mix_key(secret)).encrypt(_ZERO_NONCE, plain, self._hash)
        self._mix_hash(sealed)
        return sealed

    @staticmethod
    def _agree(private: MachinePrivate, public: bytes) -> bytes:
        try:
            own = X25519PrivateKey.from_private_bytes(private.raw)
            return own.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError as error:
            raise WireError("The control server gave a key of low order.") from error


class _Direction:
    """One direction's key and counter."""

    def __init__(self, key: bytes) -> None:
        self._cipher = ChaCha20Poly1305(key)
        self._count = 0

    def seal(self, plain: bytes) -> bytes:
        return self._cipher.encrypt(self._nonce(), plain, None)

    def open(self, sealed: bytes) -> bytes:
        return self._cipher.decrypt(self._nonce(), sealed, None)

    def _nonce(self) -> bytes:
        nonce = bytes(4) + self._count.to_bytes(8, "big")
        self._count += 1
        return nonce


def _expand(chain: bytes, secret: bytes) -> tuple[bytes, bytes]:
    """HKDF over HMAC-BLAKE2s, two outputs (Noise specification, section 4.3)."""
    extracted = hmac.digest(chain, secret, "blake2s")
    first = hmac.digest(extracted, b"\x01", "blake2s")
    return first, hmac.digest(extracted, first + b"\x02", "blake2s")
