"""DNS messages, as much of them as a resolver that answers for its own zone and forwards the rest needs.

Source: RFC 1035 (format), RFC 6891 (EDNS), RFC 2308 (negative answers), RFC 4343 (case). Only queries of one question are
read; everything after the question is skipped but for the OPT record. Names are lower-case text without a final dot,
"" is the root; what is no printable ASCII in a label is kept by `\\DDD`, as in zone files.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address

import msgspec

from buri.core.addresses import IPAddress
from buri.core.errors import WireError

HEADER_BYTES = 12
PLAIN_UDP_BYTES = 512
MAX_UDP_BYTES = 4095
_QR, _AA, _TC, _RD, _RA = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080
_OPCODE = 0x7800
_IN = 1
_OPT = 41
_SOA = 6


class RecordType(IntEnum):
    """The types answered from the netmap."""

    A = 1
    PTR = 12
    AAAA = 28


class ResponseCode(IntEnum):
    NO_ERROR = 0
    FORMAT_ERROR = 1
    SERVER_FAILURE = 2
    NAME_ERROR = 3
    NOT_IMPLEMENTED = 4
    REFUSED = 5


class Query(msgspec.Struct, frozen=True):
    """One question. `question` is its bytes as they came, so that an answer repeats the asker's upper and lower case.

    `udp_bytes`: the largest answer that may go back by UDP.
    """

    id: int
    flags: int
    name: str
    type: int
    klass: int
    question: bytes
    edns: bool
    udp_bytes: int

    @property
    def in_internet(self) -> bool:
        """Whether it is of class IN, and an ordinary query."""
        return self.klass == _IN and not self.flags & _OPCODE


def parse_query(data: bytes) -> Query:
    """Read a query. Raises WireError for what is none, has no or several questions, or does not read."""
    if len(data) < HEADER_BYTES:
        raise WireError("a DNS message has at least 12 bytes.")
    message_id, flags, questions, answers, authorities, additional = struct.unpack_from("!6H", data)
    if flags & _QR:
        raise WireError("a DNS query was expected, and this is an answer.")
    if questions != 1:
        raise WireError(f"a DNS query has one question, this has {questions}.")
    name, at = _parse_name(data, HEADER_BYTES)
    if at + 4 > len(data):
        raise WireError("a DNS question ends too early.")
    kind, klass = struct.unpack_from("!2H", data, at)
    question = data[HEADER_BYTES : at + 4]
    edns, udp_bytes = _find_edns(data, at + 4, answers + authorities + additional)
    return Query(message_id, flags, name, kind, klass, question, edns, udp_bytes)


def build_answer(
    query: Query,
    values: tuple[IPAddress | str, ...] = (),
    *,
    code: ResponseCode = ResponseCode.NO_ERROR,
    ttl_s: int,
    zone: str | None = None,
) -> bytes:
    """An answer of our own: addresses, or names of PTR records.

    With `zone`, one without values carries that zone's SOA, so that its absence may be remembered for `ttl_s`.
    """
    flags = _QR | _AA | _RA | (query.flags & (_RD | _OPCODE)) | code
    records = b"".join(_record(value, ttl_s) for value in values)
    authority = _soa(zone, ttl_s) if zone is not None and not values else b""
    counts = struct.pack("!6H", query.id, flags, 1, len(values), 1 if authority else 0, 1 if query.edns else 0)
    opt = struct.pack("!BHHIH", 0, _OPT, MAX_UDP_BYTES, 0, 0) if query.edns else b""
    return counts + query.question + records + authority + opt


def build_failure(data: bytes, code: ResponseCode) -> bytes | None:
    """An answer to a message whose question may not read: its head with a code; None when it has not even that."""
    if len(data) < HEADER_BYTES or data[2] & 0x80:
        return None
    message_id, flags = struct.unpack_from("!2H", data)
    return struct.pack("!6H", message_id, _QR | _RA | (flags & (_RD | _OPCODE)) | code, 0, 0, 0, 0)


def build_query(message_id: int, name: str, kind: int) -> bytes:
    """A recursive question of class IN."""
    return struct.pack("!6H", message_id, _RD, 1, 0, 0, 0) + build_name(name) + struct.pack("!2H", kind, _IN)


def with_id(message: bytes, message_id: int) -> bytes:
    """The same message under another id."""
    return message_id.to_bytes(2, "big") + message[2:]


def truncated(message: bytes, query: Query, limit_bytes: int) -> bytes:
    """The answer as it may go by UDP: itself when it fits, else its head and question with the TC bit."""
    if len(message) <= limit_bytes:
        return message
    flags = int.from_bytes(message[2:4], "big") | _TC
    return struct.pack("!6H", query.id, flags, 1, 0, 0, 0) + query.question


class Answer(msgspec.Struct, frozen=True):
    """What a forwarder must know of an upstream's answer; `ttl_s` is the least of its records, None when it has none."""

    id: int
    code: int
    truncated: bool
    question: bytes
    ttl_s: int | None


def parse_answer(data: bytes) -> Answer:
    """Read an answer's head, question and TTLs. Raises WireError."""
    if len(data) < HEADER_BYTES:
        raise WireError("a DNS message has at least 12 bytes.")
    message_id, flags, questions, *counts = struct.unpack_from("!6H", data)
    if not flags & _QR or questions != 1:
        raise WireError("an answer to one DNS question was expected.")
    _, at = _parse_name(data, HEADER_BYTES)
    if at + 4 > len(data):
        raise WireError("a DNS question ends too early.")
    question = data[HEADER_BYTES : at + 4]
    at += 4
    ttls: list[int] = []
    if not flags & _TC:
        for _ in range(sum(counts)):
            at = _skip_name(data, at)
            if at + 10 > len(data):
                raise WireError("a DNS record ends too early.")
            kind, _, ttl_s, length = struct.unpack_from("!HHIH", data, at)
            at += 10 + length
            if at > len(data):
                raise WireError("a DNS record ends too early.")
            if kind != _OPT:
                ttls.append(ttl_s)
    return Answer(message_id, flags & 15, bool(flags & _TC), question, min(ttls, default=None))


def aged(message: bytes, by_s: int) -> bytes:
    """A kept answer with every TTL so much shorter; the message is known to read."""
    out = bytearray(message)
    counts = struct.unpack_from("!3H", message, 6)
    at = _skip_name(message, HEADER_BYTES) + 4
    for _ in range(sum(counts)):
        at = _skip_name(message, at)
        kind, _, ttl_s, length = struct.unpack_from("!HHIH", message, at)
        if kind != _OPT:
            struct.pack_into("!I", out, at + 4, max(ttl_s - by_s, 0))
        at += 10 + length
    return bytes(out)


def reverse_name(address: IPAddress) -> str:
    """The name that a PTR question for an address asks."""
    return address.reverse_pointer


def build_name(name: str) -> bytes:
    """A name's labels on the wire, uncompressed. Raises WireError when it is none."""
    out = bytearray()
    for label in name.rstrip(".").split(".") if name.rstrip(".") else ():
        raw = label.encode("ascii", "strict") if label.isascii() else b""
        if not 0 < len(raw) < 64:
            raise WireError(f"{name!r} is not a domain name.")
        out += bytes((len(raw),)) + raw
    out.append(0)
    if len(out) > 255:
        raise WireError(f"{name!r} is too long for a domain name.")
    return bytes(out)


def _record(value: IPAddress | str, ttl_s: int) -> bytes:
    match value:
        case IPv4Address():
            kind, data = RecordType.A, value.packed
        case IPv6Address():
            kind, data = RecordType.AAAA, value.packed
        case str():
            kind, data = RecordType.PTR, build_name(value)
    return b"\xc0\x0c" + struct.pack("!HHIH", kind, _IN, ttl_s, len(data)) + data


def _soa(zone: str, ttl_s: int) -> bytes:
    name = build_name(zone)
    data = name + build_name(f"hostmaster.{zone}" if zone else "hostmaster")
    data += struct.pack("!5I", 1, 3600, 600, 86400, ttl_s)
    return name + struct.pack("!HHIH", _SOA, _IN, ttl_s, len(data)) + data


def _find_edns(data: bytes, at: int, records: int) -> tuple[bool, int]:
    """Whether there is an OPT record, and what it says fits; a tail that does not read is as if there were none."""
    for _ in range(records):
        try:
            at = _skip_name(data, at)
        except WireError:
            return False, PLAIN_UDP_BYTES
        if at + 10 > len(data):
            return False, PLAIN_UDP_BYTES
        kind, klass, _, length = struct.unpack_from("!HHIH", data, at)
        if kind == _OPT:
            return True, min(max(klass, PLAIN_UDP_BYTES), MAX_UDP_BYTES)
        at += 10 + length
    return False, PLAIN_UDP_BYTES


def _skip_name(data: bytes, at: int) -> int:
    """Where a name ends that may be compressed."""
    while at < len(data):
        length = data[at]
        if length >= 0xC0:
            return at + 2
        if length > 63:
            break
        at += 1 + length
        if length == 0:
            return at
    raise WireError("a DNS name ends too early.")


def _parse_name(data: bytes, at: int) -> tuple[str, int]:
    """An uncompressed name, as questions have."""
    labels: list[str] = []
    begin = at
    while at < len(data):
        length = data[at]
        if length > 63 or at - begin > 254:
            break
        at += 1
        if length == 0:
            return ".".join(labels), at
        raw = data[at : at + length]
        if len(raw) < length:
            break
        labels.append("".join(map(_sign, raw)))
        at += length
    raise WireError("a DNS name does not read.")


def _sign(byte: int) -> str:
    sign = chr(byte)
    return sign.lower() if 0x21 <= byte <= 0x7E and sign not in '."\\' else f"\\{byte:03d}"
