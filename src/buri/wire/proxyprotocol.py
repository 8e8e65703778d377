"""The PROXY protocol's second version, which the front door puts before a connection it hands over.

Source: HAProxy `doc/proxy-protocol.txt`, section 2.2. The TLS fact is the PP2_TYPE_SSL TLV, client bit 0x01.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

import msgspec

from buri.core.addresses import AddrPort
from buri.core.errors import WireError

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
HEAD_BYTES = 16
MAX_BODY_BYTES = 4096
_LOCAL, _PROXY = 0x20, 0x21
_TCP4, _TCP6 = 0x11, 0x21
_TLV_SSL = 0x20
_CLIENT_SSL = 0x01


class ProxyHeader(msgspec.Struct, frozen=True):
    """Where a handed-over connection came from; `source` None when the sender did not say."""

    source: AddrPort | None
    destination: AddrPort | None
    tls: bool


def build_proxy_header(header: ProxyHeader) -> bytes:
    """The header's bytes."""
    body = b""
    family = 0
    if header.source is not None and header.destination is not None:
        family = _TCP4 if header.source.address.version == 4 else _TCP6
        body = header.source.address.packed + header.destination.address.packed
        body += struct.pack(">HH", header.source.port, header.destination.port)
    if header.tls:
        body += struct.pack(">BHBI", _TLV_SSL, 5, _CLIENT_SSL, 0)
    return SIGNATURE + struct.pack(">BBH", _PROXY if family else _LOCAL, family, len(body)) + body


def parse_proxy_header(data: bytes | bytearray) -> tuple[ProxyHeader, int] | None:
    """The header at the start of `data` and its length, None while it is not whole; raises WireError for anything else."""
    if bytes(data[: len(SIGNATURE)]) != SIGNATURE[: len(data)]:
        raise WireError("This connection does not begin with a PROXY v2 header.", offset=0)
    if len(data) < HEAD_BYTES:
        return None
    command, family, length = struct.unpack_from(">BBH", data, len(SIGNATURE))
    if command not in (_LOCAL, _PROXY) or length > MAX_BODY_BYTES:
        raise WireError("The PROXY header is of a kind that is not known.", offset=len(SIGNATURE))
    end = HEAD_BYTES + length
    if len(data) < end:
        return None
    body = bytes(data[HEAD_BYTES:end])
    source = destination = None
    at = 0 if family == 0 else length  # the addresses of other families have lengths that we do not know
    if command == _PROXY and family in (_TCP4, _TCP6):
        kind, width = (IPv4Address, 4) if family == _TCP4 else (IPv6Address, 16)
        at = 2 * width + 4
        if length < at:
            raise WireError("The PROXY header is too short for its addresses.", offset=HEAD_BYTES)
        ports = struct.unpack_from(">HH", body, 2 * width)
        source = AddrPort(kind(body[:width]), ports[0])
        destination = AddrPort(kind(body[width : 2 * width]), ports[1])
    return ProxyHeader(source, destination, _tls(body, at)), end


def _tls(body: bytes, at: int) -> bool:
    while at + 3 <= len(body):
        kind, length = struct.unpack_from(">BH", body, at)
        value = body[at + 3 : at + 3 + length]
        if kind == _TLV_SSL and value and value[0] & _CLIENT_SSL:
            return True
        at += 3 + length
    return False
