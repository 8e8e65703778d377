"""Disco: the sealed datagrams by which two nodes find a path (upstream: tailscale `disco/disco.go`; wire reference 1e).

    outer   6 bytes magic | 32 bytes sender's disco key | 24 bytes nonce | NaCl box
    inner   1 byte type | 1 byte version (0) | payload

The box is X25519/XSalsa20-Poly1305 between the two disco keys; its shared key is computed once a peer (`shared_key`)
and kept by the caller, so that opening a datagram costs microseconds. Numbers are big-endian, addresses 16 bytes with
IPv4 mapped into IPv6. Trailing bytes and unknown types are not errors: later versions add both.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import msgspec
from nacl.bindings import crypto_box_afternm, crypto_box_beforenm, crypto_box_open_afternm
from nacl.exceptions import CryptoError

from buri.core.addresses import AddrPort
from buri.core.errors import WireError
from buri.core.keys import KEY_BYTES, DiscoPrivate, DiscoPublic, NodePublic

MAGIC = b"TS\xf0\x9f\x92\xac"
NONCE_BYTES = 24
BOX_OVERHEAD_BYTES = 16
HEADER_BYTES = len(MAGIC) + KEY_BYTES + NONCE_BYTES
TXID_BYTES = 12
ADDRESS_BYTES = 18
MAX_CALL_ME_MAYBE_ENDPOINTS = 100

# An unpadded ping on the wire, UDP payload: what padding counts from.
PING_BYTES = HEADER_BYTES + BOX_OVERHEAD_BYTES + 2 + TXID_BYTES + KEY_BYTES

_PING, _PONG, _CALL_ME_MAYBE = 1, 2, 3


class Ping(msgspec.Struct, frozen=True):
    """Asks for a pong. `padding_bytes` of zeros follow, to probe what size a path carries.

    `node_key` is None in pings of clients from before 2021, which left it out.
    """

    txid: bytes
    node_key: NodePublic | None
    padding_bytes: int = 0


class Pong(msgspec.Struct, frozen=True):
    """Answers a ping; `source` is where the ping came from, as the responder saw it."""

    txid: bytes
    source: AddrPort


class CallMeMaybe(msgspec.Struct, frozen=True):
    """“I am sending to you now; here I can be reached”: goes by a relay only."""

    endpoints: tuple[AddrPort, ...]


class UnknownMessage(msgspec.Struct, frozen=True):
    """A type this node does not speak (peer relay today, anything tomorrow)."""

    type: int


Message = Ping | Pong | CallMeMaybe | UnknownMessage


def shared_key(private: DiscoPrivate, peer: DiscoPublic) -> bytes:
    """The box key between two disco keys (32 bytes). Raises WireError for a peer key of low order."""
    try:
        return crypto_box_beforenm(peer.raw, private.raw)
    except CryptoError as error:
        raise WireError("a peer's disco key is no usable Curve25519 point.") from error


def looks_like_disco(datagram: bytes) -> bool:
    """Whether this is a disco datagram by its magic and length (nothing is verified)."""
    return len(datagram) >= HEADER_BYTES and datagram.startswith(MAGIC)


def parse_sender(datagram: bytes) -> DiscoPublic:
    """The disco key a datagram claims to come from. Raises WireError when it is not disco."""
    if not looks_like_disco(datagram):
        raise WireError("not a disco datagram.", offset=0)
    return DiscoPublic(datagram[len(MAGIC) : len(MAGIC) + KEY_BYTES])


def open_datagram(datagram: bytes, shared: bytes) -> Message:
    """Open and parse a whole datagram with the key shared with its sender. Raises WireError."""
    if not looks_like_disco(datagram):
        raise WireError("not a disco datagram.", offset=0)
    nonce = datagram[len(MAGIC) + KEY_BYTES : HEADER_BYTES]
    try:
        plain = crypto_box_open_afternm(datagram[HEADER_BYTES:], nonce, shared)
    except (CryptoError, ValueError) as error:
        raise WireError("a disco box does not open.", offset=HEADER_BYTES) from error
    return parse_message(plain)


def seal_datagram(message: Message, *, sender: DiscoPublic, shared: bytes, nonce: bytes) -> bytes:
    """Build a whole datagram; `nonce` is 24 random bytes, never used twice."""
    return MAGIC + sender.raw + nonce + crypto_box_afternm(build_message(message), nonce, shared)


def parse_message(plain: bytes) -> Message:
    """Parse the inside of a box. Raises WireError when it is shorter than its type demands."""
    if len(plain) < 2:
        raise WireError("a disco message has at least 2 bytes.", offset=len(plain))
    kind, version, body = plain[0], plain[1], plain[2:]
    if version != 0:
        return UnknownMessage(kind)
    if kind == _PING:
        return _parse_ping(body)
    if kind == _PONG:
        if len(body) < TXID_BYTES + ADDRESS_BYTES:
            raise WireError("a disco pong is cut short.", offset=len(plain))
        return Pong(body[:TXID_BYTES], _parse_address(body[TXID_BYTES : TXID_BYTES + ADDRESS_BYTES]))
    if kind == _CALL_ME_MAYBE:
        count = min(len(body) // ADDRESS_BYTES, MAX_CALL_ME_MAYBE_ENDPOINTS)
        if len(body) % ADDRESS_BYTES:
            return CallMeMaybe(())  # upstream takes an odd length as "no addresses", not as an error
        return CallMeMaybe(
            tuple(_parse_address(body[i * ADDRESS_BYTES : (i + 1) * ADDRESS_BYTES]) for i in range(count))
        )
    return UnknownMessage(kind)


def build_message(message: Message) -> bytes:
    """Build the inside of a box. Raises WireError for an UnknownMessage, which has no bytes."""
    match message:
        case Ping():
            # Padding behind no key would be read as one: zeros stand for it.
            key = (
                message.node_key.raw
                if message.node_key is not None
                else bytes(KEY_BYTES if message.padding_bytes else 0)
            )
            return bytes((_PING, 0)) + message.txid + key + bytes(message.padding_bytes)
        case Pong():
            return bytes((_PONG, 0)) + message.txid + _build_address(message.source)
        case CallMeMaybe():
            return bytes((_CALL_ME_MAYBE, 0)) + b"".join(map(_build_address, message.endpoints))
        case UnknownMessage():
            raise WireError(f"a disco message of type {message.type} cannot be built.")


def _parse_ping(body: bytes) -> Ping:
    if len(body) < TXID_BYTES:
        raise WireError("a disco ping is cut short.", offset=2 + len(body))
    key = None
    rest = body[TXID_BYTES:]
    if len(rest) >= KEY_BYTES:
        candidate = NodePublic(rest[:KEY_BYTES])
        key = candidate if candidate else None
        rest = rest[KEY_BYTES:]
    return Ping(body[:TXID_BYTES], key, len(rest))


def _parse_address(raw: bytes) -> AddrPort:
    address = IPv6Address(raw[:16])
    port = int.from_bytes(raw[16:18], "big")
    mapped = address.ipv4_mapped
    return AddrPort(mapped if mapped is not None else address, port)


def _build_address(address: AddrPort) -> bytes:
    ip = address.address
    raw = bytes(10) + b"\xff\xff" + ip.packed if isinstance(ip, IPv4Address) else ip.packed
    return raw + address.port.to_bytes(2, "big")
