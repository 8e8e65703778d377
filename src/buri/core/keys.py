"""Curve25519 keys and their text forms (upstream: tailscale `types/key`; wire reference 1c).

A public key is a frozen value that compares, hashes and prints by its bytes. A private key never prints itself.
"""

from __future__ import annotations

import base64
from typing import ClassVar, Self

from buri.core.errors import WireError

KEY_BYTES = 32


class _Key:
    __slots__ = ("raw",)

    PREFIX: ClassVar[str] = ""
    raw: bytes

    def __init__(self, raw: bytes) -> None:
        if len(raw) != KEY_BYTES:
            raise WireError(f"a {type(self).__name__} has {KEY_BYTES} bytes, got {len(raw)}.")
        self.raw = bytes(raw)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the prefixed hexadecimal text form.

        Raises WireError when prefix, length or digits are wrong; the text itself is not repeated (it may be a secret).
        """
        if not text.startswith(cls.PREFIX):
            raise WireError(f"a {cls.__name__} starts with {cls.PREFIX!r}.")
        digits = text[len(cls.PREFIX) :]
        try:
            if len(digits) != 2 * KEY_BYTES:  # `fromhex` skips blanks: two texts would be one key
                raise ValueError
            return cls(bytes.fromhex(digits))
        except (ValueError, WireError) as error:
            raise WireError(f"a {cls.__name__} is {cls.PREFIX!r} and 64 hexadecimal digits.") from error

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.raw == other.raw

    def __hash__(self) -> int:
        return hash((type(self), self.raw))

    def __bool__(self) -> bool:
        """False for the zero key, which stands for "none" on the wire."""
        return any(self.raw)


class PublicKey(_Key):
    """A public key; `str()` is the wire's text form."""

    __slots__ = ()

    def __str__(self) -> str:
        return self.PREFIX + self.raw.hex()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.short()}>"

    def __lt__(self, other: PublicKey) -> bool:
        return self.raw < other.raw

    def short(self) -> str:
        """The five base64 characters in brackets that logs show."""
        return "[" + base64.b64encode(self.raw).decode()[:5] + "]"

    @classmethod
    def zero(cls) -> Self:
        return cls(bytes(KEY_BYTES))


class PrivateKey(_Key):
    """A private key, clamped; never printed."""

    __slots__ = ()

    PREFIX = "privkey:"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} secret>"

    def text(self) -> str:
        """The text form for a 0600 state file; never for a log."""
        return self.PREFIX + self.raw.hex()

    @classmethod
    def from_entropy(cls, entropy: bytes) -> Self:
        """Make a key of 32 random bytes given by the caller, clamped as X25519 wants (RFC 7748, section 5)."""
        raw = bytearray(entropy)
        if len(raw) != KEY_BYTES:
            raise WireError(f"a private key needs {KEY_BYTES} random bytes, got {len(raw)}.")
        raw[0] &= 248
        raw[31] = (raw[31] & 127) | 64
        return cls(bytes(raw))

    def _public_raw(self) -> bytes:
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        return X25519PrivateKey.from_private_bytes(self.raw).public_key().public_bytes_raw()


class MachinePublic(PublicKey):
    """Identifies an installation; the static key of the Noise session with the control server."""

    __slots__ = ()
    PREFIX = "mkey:"


class NodePublic(PublicKey):
    """Identifies a node in a tailnet: its WireGuard key and its name at a relay."""

    __slots__ = ()
    PREFIX = "nodekey:"


class DiscoPublic(PublicKey):
    """Seals disco messages."""

    __slots__ = ()
    PREFIX = "discokey:"


class ChallengePublic(PublicKey):
    """The control server's early challenge."""

    __slots__ = ()
    PREFIX = "chalpub:"


class MachinePrivate(PrivateKey):
    __slots__ = ()

    def public(self) -> MachinePublic:
        return MachinePublic(self._public_raw())


class NodePrivate(PrivateKey):
    __slots__ = ()

    def public(self) -> NodePublic:
        return NodePublic(self._public_raw())


class DiscoPrivate(PrivateKey):
    __slots__ = ()

    def public(self) -> DiscoPublic:
        return DiscoPublic(self._public_raw())
