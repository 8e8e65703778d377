"""Linux rtnetlink, the few messages a node's router and network monitor need (uapi `linux/rtnetlink.h`).

Requests are answered by the local kernel within microseconds, so calls are plain and synchronous. Errors of the kernel
become core.errors: NotPermittedError for EPERM, SystemFault otherwise; "is there already" and "is gone already" are no
errors for the verbs that say so.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address, ip_network
from typing import Self

import msgspec

from buri.core.addresses import IPAddress, IPNetwork
from buri.core.errors import NotPermittedError, SystemFault

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")
_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, change
_ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, dst, src, tos, table, protocol, scope, type, flags
_RULE = struct.Struct("=BBBBBBBBI")  # family, dst, src, tos, table, -, -, action, flags

_NEWLINK, _GETLINK = 16, 18
_NEWADDR, _DELADDR, _GETADDR = 20, 21, 22
_NEWROUTE, _DELROUTE, _GETROUTE = 24, 25, 26
_NEWRULE, _DELRULE, _GETRULE = 32, 33, 34
_REQUEST, _ACK, _DUMP, _CREATE, _EXCLUSIVE, _REPLACE = 0x1, 0x4, 0x300, 0x400, 0x200, 0x100
_ERROR, _DONE = 2, 3
_SOL_NETLINK, _STRICT_CHECK, _EXT_ACK = 270, 12, 11

_IFF_UP, _IFF_LOOPBACK = 0x1, 0x8
_IFLA_IFNAME, _IFLA_MTU = 3, 4
_IFA_ADDRESS, _IFA_LOCAL, _IFA_CACHEINFO, _IFA_FLAGS = 1, 2, 6, 8
_IFA_F_NODAD, _IFA_F_TENTATIVE, _IFA_F_DEPRECATED, _IFA_F_TEMPORARY = 0x02, 0x40, 0x20, 0x01
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_TABLE = 1, 4, 5, 15
_RTPROT_STATIC, _RTN_UNICAST = 4, 1
_SCOPE_HOST, _SCOPE_LINK, _SCOPE_UNIVERSE = 254, 253, 0
_FRA_PRIORITY, _FRA_FWMARK, _FRA_TABLE, _FRA_FWMASK = 6, 10, 15, 16
_RULE_TO_TABLE, _RULE_UNREACHABLE = 1, 7

# links; addresses, routes and rules of both families
_GROUPS = 0x1 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 0x40000
_BUFFER_BYTES = 1 << 18
_BATCH = 64  # changes in one datagram: their acknowledgements fit into any receive buffer


Destination = tuple[bytes, int]  # an address in network order, and how many of its bits count


class Link(msgspec.Struct, frozen=True):
    index: int
    name: str
    up: bool
    loopback: bool
    mtu: int


class InterfaceAddress(msgspec.Struct, frozen=True):
    """An address of an interface; `usable` False while it is tentative or deprecated."""

    index: int
    address: IPAddress
    prefix_length: int
    usable: bool


class Route(msgspec.Struct, frozen=True):
    prefix: IPNetwork
    index: int
    table: int
    gateway: IPAddress | None


class Rule(msgspec.Struct, frozen=True, order=True):
    """A policy routing rule: at `priority`, packets with `mark` (under `mask`; 0: all) use `table` (0: unreachable)."""

    priority: int
    table: int
    mark: int = 0
    mask: int = 0


def _attribute(kind: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, value.to_bytes(4, "little" if struct.pack("=H", 1)[0] else "big"))


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            break
        found[kind & 0x3FFF] = data[at + _ATTRIBUTE.size : at + length]
        at += length + (-length % 4)
    return found


def _int(value: bytes | None, default: int = 0) -> int:
    return default if value is None or len(value) < 4 else int(struct.unpack("=I", value[:4])[0])


def _family(address: IPAddress | IPNetwork) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


class Netlink:
    """One rtnetlink socket for requests."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        for option in (_STRICT_CHECK, _EXT_ACK):
            try:
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
            except OSError:
                continue  # an older kernel filters less; so do we, below
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    # ---- links and addresses ------------------------------------------------------------------------------------

    def links(self) -> list[Link]:
        """All interfaces."""
        found = []
        for body in self._dump(_GETLINK, _NEWLINK, _LINK.pack(0, 0, 0, 0, 0)):
            _, _, index, flags, _ = _LINK.unpack_from(body)
            fields = _attributes(body[_LINK.size :])
            name = fields.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode("utf-8", "replace")
            up, loopback = bool(flags & _IFF_UP), bool(flags & _IFF_LOOPBACK)
            found.append(Link(index, name, up, loopback, _int(fields.get(_IFLA_MTU))))
        return found

    def set_link(self, index: int, *, mtu: int | None = None, up: bool | None = None) -> None:
        """Change an interface's MTU and whether it is up."""
        flags = _IFF_UP if up else 0
        change = 0 if up is None else _IFF_UP
        body = _LINK.pack(0, 0, index, flags, change)
        self._ask(_NEWLINK, 0, body + (b"" if mtu is None else _number(_IFLA_MTU, mtu)), "change an interface")

    def addresses(self) -> list[InterfaceAddress]:
        """All addresses of all interfaces."""
        found = []
        for body in self._dump(_GETADDR, _NEWADDR, _ADDRESS.pack(0, 0, 0, 0, 0)):
            _, length, short_flags, _, index = _ADDRESS.unpack_from(body)
            fields = _attributes(body[_ADDRESS.size :])
            raw = fields.get(_IFA_LOCAL) or fields.get(_IFA_ADDRESS)
            if raw is None:
                continue
            flags = _int(fields.get(_IFA_FLAGS), short_flags)
            usable = not flags & (_IFA_F_TENTATIVE | _IFA_F_DEPRECATED)
            found.append(InterfaceAddress(index, ip_address(raw), length, usable))
        return found

    def add_address(self, index: int, address: IPAddress, *, as_source: bool = True) -> None:
        """Give an interface a /32 or /128; there already is fine. Without `as_source` nothing is sent from it unasked."""
        body = self._address(index, address, as_source=as_source)
        self._ask(_NEWADDR, _CREATE | _REPLACE, body, f"add the address {address}")

    def remove_address(self, index: int, address: IPAddress) -> None:
        """Take an address away; gone already is fine."""
        gone = (errno.EADDRNOTAVAIL, errno.ENODEV)
        self._ask(_DELADDR, 0, self._address(index, address), f"remove the address {address}", allow=gone)

    @staticmethod
    def _address(index: int, address: IPAddress, *, as_source: bool = True) -> bytes:
        # How the kernel is told not to choose it: IPv4 by its scope, IPv6 by a preferred lifetime that is over.
        scope = _SCOPE_HOST if address.version == 4 and not as_source else _SCOPE_UNIVERSE
        head = _ADDRESS.pack(_family(address), address.max_prefixlen, 0, scope, index)
        fields = _attribute(_IFA_LOCAL, address.packed) + _attribute(_IFA_ADDRESS, address.packed)
        if address.version == 6 and not as_source:
            fields += _attribute(_IFA_CACHEINFO, struct.pack("=4I", 0, 0xFFFFFFFF, 0, 0))
        return head + fields + _number(_IFA_FLAGS, _IFA_F_NODAD if address.version == 6 else 0)

    # ---- routes and rules ---------------------------------------------------------------------------------------

    def routes(self, table: int, family: int = socket.AF_UNSPEC) -> list[Route]:
        """The unicast routes of one table."""
        found = []
        for one in (socket.AF_INET, socket.AF_INET6) if family == socket.AF_UNSPEC else (family,):
            ask = _ROUTE.pack(one, 0, 0, 0, 0, 0, 0, 0, 0) + _number(_RTA_TABLE, table)
            # ENOENT: a kernel with strict checks has no such table
            for body in self._dump(_GETROUTE, _NEWROUTE, ask, allow=(errno.ENOENT, errno.EAFNOSUPPORT)):
                kind_family, length, _, _, short_table, _, _, kind, _ = _ROUTE.unpack_from(body)
                fields = _attributes(body[_ROUTE.size :])
                if _int(fields.get(_RTA_TABLE), short_table) != table or kind != _RTN_UNICAST:
                    continue
                raw = fields.get(_RTA_DST, bytes(4 if kind_family == socket.AF_INET else 16))
                gateway = fields.get(_RTA_GATEWAY)
                prefix = ip_network((raw, length), strict=False)
                via = None if gateway is None else ip_address(gateway)
                found.append(Route(prefix, _int(fields.get(_RTA_OIF)), table, via))
        return found

    def destinations(self, index: int, table: int) -> set[Destination]:
        """Where the unicast routes of one table into an interface go: what `routes` tells, at a fraction of its cost."""
        found = set()
        for family in (socket.AF_INET, socket.AF_INET6):
            ask = _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0) + _number(_RTA_TABLE, table)
            for body in self._dump(_GETROUTE, _NEWROUTE, ask, allow=(errno.ENOENT, errno.EAFNOSUPPORT)):
                _, length, _, _, short_table, _, _, kind, _ = _ROUTE.unpack_from(body)
                fields = _attributes(body[_ROUTE.size :])
                into = kind == _RTN_UNICAST and _int(fields.get(_RTA_OIF)) == index
                if into and _int(fields.get(_RTA_TABLE), short_table) == table:
                    found.add((fields.get(_RTA_DST, bytes(4 if family == socket.AF_INET else 16)), length))
        return found

    def change_routes(
        self, index: int, table: int, add: Iterable[Destination] = (), remove: Iterable[Destination] = ()
    ) -> None:
        """Route destinations into an interface, and others no more; there or gone already is fine.

        The first refusal is raised once the kernel has answered for its whole batch.
        """
        gone = (errno.ESRCH, errno.ENOENT, errno.ENODEV)
        adding = [(_NEWROUTE, _CREATE | _REPLACE, self._route(one, index, table)) for one in add]
        self._ask_all(adding, "add routes")
        removing = [(_DELROUTE, 0, self._route(one, index, table)) for one in remove]
        self._ask_all(removing, "remove routes", allow=gone)

    @staticmethod
    def _route(destination: Destination, index: int, table: int) -> bytes:
        packed, length = destination
        family, scope = (socket.AF_INET, _SCOPE_LINK) if len(packed) == 4 else (socket.AF_INET6, _SCOPE_UNIVERSE)
        head = _ROUTE.pack(family, length, 0, 0, 0, _RTPROT_STATIC, scope, _RTN_UNICAST, 0)
        fields = _attribute(_RTA_DST, packed) if length else b""
        return head + fields + _number(_RTA_OIF, index) + _number(_RTA_TABLE, table)

    def rules(self, family: int) -> list[Rule]:
        """The policy rules of one family that say no more than a `Rule` can."""
        found = []
        for body in self._dump(_GETRULE, _NEWRULE, _RULE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)):
            _, _, _, _, short_table, _, _, action, _ = _RULE.unpack_from(body)
            fields = _attributes(body[_RULE.size :])
            table = _int(fields.get(_FRA_TABLE), short_table) if action == _RULE_TO_TABLE else 0
            mark, mask = _int(fields.get(_FRA_FWMARK)), _int(fields.get(_FRA_FWMASK))
            if action in (_RULE_TO_TABLE, _RULE_UNREACHABLE):
                found.append(Rule(_int(fields.get(_FRA_PRIORITY)), table, mark, mask if mark else 0))
        return found

    def add_rule(self, family: int, rule: Rule) -> None:
        """Add a policy rule; there already is fine."""
        flags, there = _CREATE | _EXCLUSIVE, (errno.EEXIST,)
        self._ask(_NEWRULE, flags, self._rule(family, rule), "add a routing rule", allow=there)

    def remove_rule(self, family: int, rule: Rule) -> None:
        """Remove a policy rule; gone already is fine."""
        gone = (errno.ENOENT, errno.ESRCH)
        self._ask(_DELRULE, 0, self._rule(family, rule), "remove a routing rule", allow=gone)

    @staticmethod
    def _rule(family: int, rule: Rule) -> bytes:
        action = _RULE_TO_TABLE if rule.table else _RULE_UNREACHABLE
        body = _RULE.pack(family, 0, 0, 0, 0, 0, 0, action, 0) + _number(_FRA_PRIORITY, rule.priority)
        if rule.table:
            body += _number(_FRA_TABLE, rule.table)
        if rule.mark:
            body += _number(_FRA_FWMARK, rule.mark) + _number(_FRA_FWMASK, rule.mask)
        return body

    # ---- transport ----------------------------------------------------------------------------------------------

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._sequence += 1
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), kind, flags | _REQUEST, self._sequence, 0) + body)

    def _receive(self) -> Iterator[tuple[int, bytes]]:
        while True:
            for sequence, kind, content in _messages(self._socket.recv(_BUFFER_BYTES)):
                if sequence == self._sequence:
                    yield kind, content

    def _ask(self, kind: int, flags: int, body: bytes, what: str, *, allow: tuple[int, ...] = ()) -> None:
        self._send(kind, flags | _ACK, body)
        for answer, content in self._receive():
            if answer == _ERROR:
                _check(content, what, allow)
                return

    def _ask_all(self, requests: Sequence[tuple[int, int, bytes]], what: str, *, allow: tuple[int, ...] = ()) -> None:
        """Many requests, a batch in one datagram; the kernel answers each."""
        for start in range(0, len(requests), _BATCH):
            batch = requests[start : start + _BATCH]
            first = self._sequence + 1
            data = bytearray()
            for kind, flags, body in batch:
                self._sequence += 1
                length = _HEADER.size + len(body)
                data += _HEADER.pack(length, kind, flags | _REQUEST | _ACK, self._sequence, 0) + body
            self._socket.send(data)
            waiting = set(range(first, self._sequence + 1))
            refusals: list[bytes] = []
            while waiting:
                for sequence, answer, content in _messages(self._socket.recv(_BUFFER_BYTES)):
                    if answer == _ERROR and sequence in waiting:
                        waiting.discard(sequence)
                        refusals.append(content)
            for content in refusals:
                _check(content, what, allow)

    def _dump(self, kind: int, wanted: int, body: bytes, *, allow: tuple[int, ...] = ()) -> list[bytes]:
        self._send(kind, _DUMP, body)
        found = []
        for answer, content in self._receive():
            if answer == wanted:
                found.append(content)
            elif answer in (_DONE, _ERROR):
                _check(content, "read the network's state", allow)
                break
        return found


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Sequence, type and content of each message of a datagram."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, sequence, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        yield sequence, kind, data[at + _HEADER.size : at + length]
        at += length + (-length % 4)


def _check(content: bytes, what: str, allow: tuple[int, ...]) -> None:
    code = -int(struct.unpack_from("=i", content)[0]) if len(content) >= 4 else 0
    if code <= 0 or code in allow:
        return
    if code in (errno.EPERM, errno.EACCES):
        raise NotPermittedError(f"The kernel does not let us {what}.", remedy="Run burid as root (CAP_NET_ADMIN).")
    raise SystemFault(f"The kernel could not {what}: {os.strerror(code)}.")


class NetworkEvents:
    """Readable when links, addresses, routes or rules changed; what changed is to be read anew."""

    def __init__(self) -> None:
        flags = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, flags, socket.NETLINK_ROUTE)
        self._socket.bind((0, _GROUPS))

    def fileno(self) -> int:
        return self._socket.fileno()

    def drain(self) -> None:
        """Throw away what waits; an overflow (ENOBUFS) is one change more."""
        while True:
            try:
                self._socket.recv(_BUFFER_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise

    def close(self) -> None:
        self._socket.close()
