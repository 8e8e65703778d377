"""The Noise layer of a control connection: Noise_IK_25519_ChaChaPoly_BLAKE2s with Tailscale's prologue and framing.

Pure: keys are given. What both ends share is here; the two ends are `machine.noiseclient` and `machine.noiseserver`.
Handshake keys are used once, with a zero nonce; record nonces are four zero bytes and a BIG-endian counter, one for each
direction (upstream: tailscale `control/controlbase`; wire reference 1a, "Noise").
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from buri.core.errors import WireError
from buri.core.keys import KEY_BYTES, PrivateKey

PATTERN = b"Noise_IK_25519_ChaChaPoly_BLAKE2s"
PROLOGUE = b"Tailscale Control Protocol v%d"
INITIATION, RESPONSE, ERROR, RECORD = 1, 2, 3, 4
HEADER_BYTES = 3
TAG_BYTES = 16
INITIATION_BODY_BYTES = KEY_BYTES + KEY_BYTES + TAG_BYTES + TAG_BYTES
INITIATION_BYTES = 2 + HEADER_BYTES + INITIATION_BODY_BYTES
RESPONSE_BODY_BYTES = KEY_BYTES + TAG_BYTES
MAX_CIPHERTEXT_BYTES = 4096 - HEADER_BYTES
MAX_PLAINTEXT_BYTES = MAX_CIPHERTEXT_BYTES - TAG_BYTES
_ZERO_NONCE = bytes(12)


class Handshake:
    """The symmetric state of one handshake (Noise specification, section 5.2)."""

    def __init__(self, version: int, server_key: bytes) -> None:
        self._hash = self._chain = hashlib.blake2s(PATTERN).digest()
        self.mix_hash(PROLOGUE % version)
        self.mix_hash(server_key)

    def mix_hash(self, data: bytes) -> None:
        self._hash = hashlib.blake2s(self._hash + data).digest()

    def mix_key(self, secret: bytes) -> bytes:
        """Fold a shared secret in; returns the key for the next seal or open."""
        self._chain, key = _expand(self._chain, secret)
        return key

    def seal(self, secret: bytes, plain: bytes) -> bytes:
        sealed = ChaCha20Poly1305(self.mix_key(secret)).encrypt(_ZERO_NONCE, plain, self._hash)
        self.mix_hash(sealed)
        return sealed

    def open(self, secret: bytes, sealed: bytes) -> bytes:
        """Raises WireError when the other side lacks the keys it claims."""
        try:
            plain = ChaCha20Poly1305(self.mix_key(secret)).decrypt(_ZERO_NONCE, sealed, self._hash)
        except InvalidTag as error:
            raise WireError("The other side of the Noise handshake proved no knowledge of its key.") from error
        self.mix_hash(sealed)
        return plain

    def split(self) -> tuple[Direction, Direction]:
        """The keys of the session: client to server, server to client."""
        first, second = _expand(self._chain, b"")
        return Direction(first), Direction(second)


class Direction:
    """One direction's key and counter."""

    def __init__(self, key: bytes) -> None:
        self._cipher = ChaCha20Poly1305(key)
        self._count = 0

    def seal(self, plain: bytes) -> bytes:
        """One ciphertext, without its record header."""
        return self._cipher.encrypt(self._nonce(), plain, None)

    def open(self, sealed: bytes) -> bytes:
        """Raises WireError when the record was forged or is out of order."""
        try:
            return self._cipher.decrypt(self._nonce(), sealed, None)
        except InvalidTag as error:
            raise WireError("A Noise record does not open: it was altered, or is out of order.") from error

    def records(self, data: bytes) -> bytes:
        """All of `data` as framed records."""
        out = bytearray()
        for at in range(0, len(data), MAX_PLAINTEXT_BYTES):
            out += build_message(RECORD, self.seal(data[at : at + MAX_PLAINTEXT_BYTES]))
        return bytes(out)

    def _nonce(self) -> bytes:
        nonce = bytes(4) + self._count.to_bytes(8, "big")
        self._count += 1
        return nonce


class MessageReader:
    """Cuts a byte stream into (type, body) messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield the messages that are whole; raises WireError for one that is too long."""
        self._buffer += data
        while len(self._buffer) >= HEADER_BYTES:
            kind, length = self._buffer[0], int.from_bytes(self._buffer[1:HEADER_BYTES], "big")
            if length > MAX_CIPHERTEXT_BYTES:
                raise WireError(f"A Noise record of {length} bytes is over the limit of {MAX_CIPHERTEXT_BYTES}.")
            end = HEADER_BYTES + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[HEADER_BYTES:end])
            del self._buffer[:end]
            yield kind, body


def build_message(kind: int, body: bytes) -> bytes:
    """A message with its header."""
    return bytes((kind,)) + len(body).to_bytes(2, "big") + body


def build_initiation(version: int, body: bytes) -> bytes:
    """The first message, which alone has the protocol version before its header."""
    return version.to_bytes(2, "big") + build_message(INITIATION, body)


def parse_initiation(data: bytes) -> tuple[int, bytes]:
    """Version and body of a first message; raises WireError."""
    if len(data) != INITIATION_BYTES:
        raise WireError(f"A Noise initiation has {INITIATION_BYTES} bytes, got {len(data)}.")
    if data[2:5] != bytes((INITIATION,)) + INITIATION_BODY_BYTES.to_bytes(2, "big"):
        raise WireError("This is not a Noise initiation.", offset=2)
    return int.from_bytes(data[:2], "big"), data[5:]


class Agreement:
    """A private key made ready once for all that a handshake does with it: making ready costs as much as agreeing."""

    def __init__(self, private: PrivateKey) -> None:
        self._own = X25519PrivateKey.from_private_bytes(private.raw)
        self.public = self._own.public_key().public_bytes_raw()

    def agree(self, public: bytes) -> bytes:
        """The shared secret with another's public key (RFC 7748); raises WireError for a key of low order."""
        try:
            return self._own.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError as error:
            raise WireError("The other side gave a key of low order.") from error


def _expand(chain: bytes, secret: bytes) -> tuple[bytes, bytes]:
    """HKDF over HMAC-BLAKE2s, two outputs (Noise specification, section 4.3)."""
    extracted = hmac.digest(chain, secret, "blake2s")
    first = hmac.digest(extracted, b"\x01", "blake2s")
    return first, hmac.digest(extracted, first + b"\x02", "blake2s")
