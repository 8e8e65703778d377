"""STUN binding, the little of RFC 5389 that a mesh needs (upstream: tailscale `net/stun/stun.go`; wire reference 1d).

A request carries SOFTWARE = "tailnode" first and FINGERPRINT last, in that order: Tailscale's own servers refuse
others. Our server side answers plain requests too (`strict=False`). A response has XOR-MAPPED-ADDRESS alone; when
read, the old 0x8020 form and MAPPED-ADDRESS are taken as well.
"""

from __future__ import annotations

from binascii import crc32
from ipaddress import IPv4Address, IPv6Address, ip_address

from buri.core.addresses import AddrPort, IPAddress
from buri.core.errors import WireError

MAGIC_COOKIE = b"\x21\x12\xa4\x42"
TXID_BYTES = 12
HEADER_BYTES = 20
SOFTWARE = b"tailnode"
DEFAULT_PORT = 3478

_BINDING_REQUEST = b"\x00\x01"
_BINDING_SUCCESS = b"\x01\x01"
_MAPPED_ADDRESS = 0x0001
_XOR_MAPPED_ADDRESS = 0x0020
_XOR_MAPPED_ADDRESS_OLD = 0x8020
_SOFTWARE = 0x8022
_FINGERPRINT = 0x8028
_FINGERPRINT_XOR = 0x5354554E
_FINGERPRINT_BYTES = 8
_FAMILY_IPV4, _FAMILY_IPV6 = 1, 2


def looks_like_stun(datagram: bytes) -> bool:
    """Whether this is STUN by cookie and the two zero bits (nothing else is verified)."""
    return len(datagram) >= HEADER_BYTES and datagram[0] < 0x40 and datagram[4:8] == MAGIC_COOKIE


def build_request(txid: bytes) -> bytes:
    """A binding request with SOFTWARE and FINGERPRINT; `txid` is 12 random bytes."""
    software = _attribute(_SOFTWARE, SOFTWARE)
    head = _BINDING_REQUEST + (len(software) + _FINGERPRINT_BYTES).to_bytes(2, "big") + MAGIC_COOKIE + txid + software
    return head + _attribute(_FINGERPRINT, (crc32(head) ^ _FINGERPRINT_XOR).to_bytes(4, "big"))


def parse_request(datagram: bytes, *, strict: bool = False) -> bytes:
    """The transaction id of a binding request. Raises WireError.

    `strict` demands what upstream's server does: SOFTWARE "tailnode" and a right FINGERPRINT at the end.
    """
    attributes = _parse(datagram, _BINDING_REQUEST)
    if strict:
        if (_SOFTWARE, SOFTWARE) not in attributes:
            raise WireError("a STUN request lacks SOFTWARE 'tailnode'.")
        expected = (crc32(datagram[:-_FINGERPRINT_BYTES]) ^ _FINGERPRINT_XOR).to_bytes(4, "big")
        if not attributes or attributes[-1] != (_FINGERPRINT, expected):
            raise WireError("a STUN request lacks its FINGERPRINT, or it is wrong.")
    return datagram[8:HEADER_BYTES]


def build_response(txid: bytes, source: AddrPort) -> bytes:
    """The answer to a request that came from `source`."""
    value = _xor_mapped(txid, source)
    attribute = _attribute(_XOR_MAPPED_ADDRESS, value)
    return _BINDING_SUCCESS + len(attribute).to_bytes(2, "big") + MAGIC_COOKIE + txid + attribute


def parse_response(datagram: bytes) -> tuple[bytes, AddrPort]:
    """(transaction id, our address as the server saw it) of a success response. Raises WireError."""
    attributes = _parse(datagram, _BINDING_SUCCESS)
    txid = datagram[8:HEADER_BYTES]
    plain: AddrPort | None = None
    for kind, value in attributes:
        if kind in (_XOR_MAPPED_ADDRESS, _XOR_MAPPED_ADDRESS_OLD):
            return txid, _parse_mapped(value, MAGIC_COOKIE + txid)
        if kind == _MAPPED_ADDRESS:
            plain = _parse_mapped(value, bytes(16))
    if plain is None:
        raise WireError("a STUN response has no mapped address.")
    return txid, plain


def _parse(datagram: bytes, expected_type: bytes) -> list[tuple[int, bytes]]:
    if not looks_like_stun(datagram):
        raise WireError("not a STUN message.", offset=0)
    if datagram[:2] != expected_type:
        raise WireError("not the STUN message expected here.", offset=0)
    end = HEADER_BYTES + int.from_bytes(datagram[2:4], "big")
    if end > len(datagram):
        raise WireError("a STUN message is cut short.", offset=len(datagram))
    attributes: list[tuple[int, bytes]] = []
    at = HEADER_BYTES
    while at + 4 <= end:
        kind = int.from_bytes(datagram[at : at + 2], "big")
        length = int.from_bytes(datagram[at + 2 : at + 4], "big")
        if at + 4 + length > end:
            raise WireError("a STUN attribute runs past its message.", offset=at)
        attributes.append((kind, datagram[at + 4 : at + 4 + length]))
        at += 4 + (length + 3 & ~3)
    return attributes


def _attribute(kind: int, value: bytes) -> bytes:
    return kind.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value + bytes(-len(value) % 4)


def _mask(packed: bytes, key: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(packed, key, strict=False))


def _xor_mapped(txid: bytes, source: AddrPort) -> bytes:
    ip = source.address
    family = _FAMILY_IPV4 if isinstance(ip, IPv4Address) else _FAMILY_IPV6
    key = MAGIC_COOKIE + txid
    return bytes((0, family)) + _mask(source.port.to_bytes(2, "big"), key) + _mask(ip.packed, key)


def _parse_mapped(value: bytes, key: bytes) -> AddrPort:
    size = {_FAMILY_IPV4: 4, _FAMILY_IPV6: 16}.get(value[1] if len(value) > 1 else 0)
    if size is None or len(value) < 4 + size:
        raise WireError("a STUN address has an unknown family or is cut short.")
    address: IPAddress = ip_address(_mask(value[4 : 4 + size], key))
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return AddrPort(address, int.from_bytes(_mask(value[2:4], key), "big"))
