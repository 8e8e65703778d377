"""Datagrams, texts and small forms of the wire: reading gives a value or a WireError, and values survive a round trip."""

from __future__ import annotations

import contextlib

from buri.core.addresses import AddrPort, parse_prefix
from buri.core.errors import ConfigError, WireError
from buri.core.keys import DiscoPrivate, DiscoPublic, MachinePublic, NodePrivate, NodePublic, PublicKey
from buri.policy import document
from buri.wire import disco, dnsmessage, stun
from buri.wire.hujson import Document
from buri.wire.proxyprotocol import parse_proxy_header
from buri.wire.tailcfg.base import format_time, parse_time
from fuzz.target import Target

_OURS = DiscoPrivate.from_entropy(b"o" * 32)
_THEIRS = DiscoPrivate.from_entropy(b"t" * 32)
_SHARED = disco.shared_key(_OURS, _THEIRS.public())
_NODE = NodePrivate.from_entropy(b"n" * 32).public()
_NONCE = b"0" * disco.NONCE_BYTES
_SOURCE = AddrPort.parse("192.0.2.1:41641")
_MESSAGES: tuple[disco.Message, ...] = (
    disco.Ping(b"t" * 12, _NODE, 100),
    disco.Ping(b"t" * 12, None),
    disco.Pong(b"t" * 12, AddrPort.parse("[2001:db8::1]:7")),
    disco.CallMeMaybe((_SOURCE, AddrPort.parse("[::1]:1"))),
)


def _disco_datagram(data: bytes) -> None:
    """A datagram as it comes: whoever sent it, a WireError is the worst of it."""
    try:
        disco.parse_sender(data)
        disco.open_datagram(data, _SHARED)
    except WireError:
        return


def _disco_message(data: bytes) -> None:
    """The inside of a box that opened: what was read is built again, and reads the same."""
    try:
        message = disco.parse_message(data)
    except WireError:
        return
    if not isinstance(message, disco.UnknownMessage):
        assert disco.parse_message(disco.build_message(message)) == message


def _disco_key(data: bytes) -> None:
    """A peer's disco key from the netmap: of low order or not, it gives a box key or a WireError."""
    try:
        assert len(disco.shared_key(_OURS, DiscoPublic(data))) == 32
    except WireError:
        return


def _dns(data: bytes) -> None:
    """A question that reads is answered; an answer that reads can be aged and read again."""
    with contextlib.suppress(WireError):
        query = dnsmessage.parse_query(data)
        answer = dnsmessage.build_answer(query, (_SOURCE.address,), ttl_s=5)
        assert dnsmessage.parse_answer(answer).question == query.question
        assert len(dnsmessage.truncated(answer, query, query.udp_bytes)) <= query.udp_bytes
    with contextlib.suppress(WireError):
        said = dnsmessage.parse_answer(data)
        if not said.truncated:
            assert dnsmessage.parse_answer(dnsmessage.aged(data, 7)).question == said.question


def _stun(data: bytes) -> None:
    for strict in (False, True):
        with contextlib.suppress(WireError):
            assert len(stun.parse_request(data, strict=strict)) == stun.TXID_BYTES
    try:
        txid, address = stun.parse_response(data)
    except WireError:
        return
    assert stun.parse_response(stun.build_response(txid, address)) == (txid, address)


def _proxy(data: bytes) -> None:
    try:
        found = parse_proxy_header(data)
    except WireError:
        return
    if found is not None:
        assert 16 <= found[1] <= len(data)


def _texts(data: bytes) -> None:
    """Keys, addresses, prefixes and times: one value has one text, as the wire writes it."""
    text = data.decode("utf-8", "surrogateescape")
    kinds: tuple[type[PublicKey], ...] = (NodePublic, MachinePublic, DiscoPublic)
    for kind in kinds:
        try:
            key = kind.parse(text)
        except WireError:
            continue
        assert str(key) == text.lower()
    try:
        address = AddrPort.parse(text)
        assert AddrPort.parse(str(address)) == address
        assert text.isascii()
    except WireError:
        pass
    try:
        prefix = parse_prefix(text)
        assert parse_prefix(str(prefix)) == prefix
    except WireError:
        pass
    try:
        wall_s = parse_time(text)
        assert abs(parse_time(format_time(wall_s)) - wall_s) < 2
    except ValueError:
        pass


def _hujson(data: bytes) -> None:
    """A document reads, or has a place where it does not; every value has a place inside the text."""
    try:
        found = Document.parse(data)
    except ConfigError:
        return
    lines = found.text.count("\n") + 1
    paths: list[tuple[tuple[str | int, ...], object]] = [((), found.value)]
    while paths:
        path, value = paths.pop()
        line, column = found.place(path)
        assert 1 <= line <= lines
        assert column >= 1
        if isinstance(value, dict):
            paths += [((*path, key), member) for key, member in value.items()]
        elif isinstance(value, list):
            paths += [((*path, number), member) for number, member in enumerate(value)]


def _policy(data: bytes) -> None:
    """A policy is read whole, or refused with its places."""
    with contextlib.suppress(ConfigError):
        document.parse(data)


_POLICY = b"""{
  // who may what
  "groups": {"group:dev": ["a@x.example"]}, "tagOwners": {"tag:web": ["group:dev"]}, "hosts": {"h": "10.0.0.0/8"},
  "acls": [{"action": "accept", "src": ["group:dev", "*"], "dst": ["tag:web:22,80-90", "h:*"], "proto": "tcp"}],
  "grants": [{"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["tcp:443", "*"], "app": {"a.b/c": [{}]}}],
  "ssh": [{"action": "check", "checkPeriod": "1h", "src": ["group:dev"], "dst": ["tag:web"], "users": ["root"]}],
  "tests": [{"src": "a@x.example", "accept": ["tag:web:22"], "deny": ["h:1"]}], /* and */
  "nodeAttrs": [{"target": ["*"], "attr": ["funnel"]}], "autoApprovers": {"routes": {"10.0.0.0/8": ["tag:web"]}},
  "postures": {"posture:p": ["node:os == 'linux'"]}, "randomizeClientPort": true,
}"""
_DNS_ANSWER = dnsmessage.build_answer(
    dnsmessage.parse_query(dnsmessage.build_query(7, "home.tail.example", 1)), (_SOURCE.address,), ttl_s=5
)
_REQUEST = stun.build_request(b"x" * 12)
_PROXY = (
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x14"
    + bytes((192, 0, 2, 1, 198, 51, 100, 2, 3, 232, 1, 187))
    + b" \0\x05\1\0\0\0\0"
)

TARGETS = (
    Target(
        "disco_datagram",
        _disco_datagram,
        [disco.seal_datagram(m, sender=_THEIRS.public(), shared=_SHARED, nonce=_NONCE) for m in _MESSAGES],
    ),
    Target("disco_message", _disco_message, [*map(disco.build_message, _MESSAGES), b"\x09\0", b"\1\1"]),
    Target("disco_key", _disco_key, [_THEIRS.public().raw, bytes(32), b"\1" + bytes(31)]),
    Target("dns", _dns, [dnsmessage.build_query(7, "home.tail.example", 28), _DNS_ANSWER]),
    Target("stun", _stun, [_REQUEST, stun.build_response(b"x" * 12, _SOURCE)]),
    Target("proxy_header", _proxy, [_PROXY, _PROXY[:14], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"]),
    Target(
        "texts",
        _texts,
        [
            str(_NODE).encode(),
            str(_THEIRS.public()).encode(),
            b"192.0.2.1:41641",
            b"[2001:db8::1%eth0]:7",
            b"10.0.0.0/8",
            b"fd7a::/48",
            b"2026-11-24T12:00:00Z",
            b"2026-11-24T12:00:00.123456789+01:00",
        ],
    ),
    Target(
        "hujson", _hujson, [_POLICY, b'{"a": [1, 2.5, "x\\u00e9", null, true,],}', b"[" * 2000, b'"\\ud800"', b"/*"]
    ),
    Target("policy", _policy, [_POLICY]),
)
