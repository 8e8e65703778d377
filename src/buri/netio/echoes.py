"""Pings inside the tunnel, by the host's own raw sockets: ICMP echo, and TSMP (IP protocol 99, wire reference "TSMP").

Both go through the tunnel device like any packet of the host, so they prove the whole way, packet filter included. TSMP
pings are answered by `TSMPResponder`: `p` and 8 bytes come, `o`, the same 8 bytes and a port (none: 0) go back.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Callable, Sequence
from typing import Self

from buri.core.addresses import IPAddress
from buri.core.errors import NotPermittedError, SystemFault, UnreachableError
from buri.machine.paths.limits import TokenBucket

TSMP = 99
ANSWERS = (50.0, 100.0)  # a second, and at once
_TOKEN_BYTES = 8
_LONGEST_BYTES = 2048
_ECHO_REQUEST = {4: 8, 6: 128}
_ECHO_REPLY = {4: 0, 6: 129}
_Test = Callable[[bytes], bool]


async def ping_icmp(address: IPAddress) -> float:
    """One ICMP echo; seconds until its answer, for which it waits without end. Raises SystemFault, UnreachableError."""
    protocol = socket.IPPROTO_ICMP if address.version == 4 else socket.IPPROTO_ICMPV6
    head = bytes((_ECHO_REQUEST[address.version], 0, 0, 0)) + secrets.token_bytes(2) + b"\0\1"
    token = secrets.token_bytes(_TOKEN_BYTES)
    message = head + token
    if address.version == 4:  # for IPv6 the kernel does it
        message = message[:2] + _checksum(message) + message[4:]
    wanted = bytes((_ECHO_REPLY[address.version], 0))
    return await _exchange(address, protocol, message, lambda body: body[:2] == wanted and body[4:] == message[4:])


async def ping_tsmp(address: IPAddress) -> float:
    """One TSMP ping; seconds until its answer, for which it waits without end. Raises SystemFault, UnreachableError."""
    token = secrets.token_bytes(_TOKEN_BYTES)
    return await _exchange(address, TSMP, b"p" + token, lambda body: body[:9] == b"o" + token)


class TSMPResponder:
    """Answers the TSMP pings that come out of one interface."""

    def __init__(self, sockets: Sequence[socket.socket]) -> None:
        self._loop = asyncio.get_running_loop()
        self._sockets = sockets
        self._answers = TokenBucket(ANSWERS)
        for one in sockets:
            self._loop.add_reader(one, self._answer, one)

    @classmethod
    def open(cls, interface: str) -> Self:
        """Begin; raises NotPermittedError or SystemFault."""
        opened: list[socket.socket] = []
        with contextlib.ExitStack() as undo:
            for version in (4, 6):
                one = _open(version, TSMP)
                undo.callback(one.close)
                try:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
                except OSError as error:
                    raise SystemFault(f"TSMP cannot be answered on {interface}: {error.strerror}.") from error
                opened.append(one)
            undo.pop_all()
        return cls(opened)

    def close(self) -> None:
        for one in self._sockets:
            self._loop.remove_reader(one)
            one.close()

    def _answer(self, one: socket.socket) -> None:
        with contextlib.suppress(OSError):  # a peer that is gone meanwhile, or a full queue: it pings again
            data, sender = one.recvfrom(_LONGEST_BYTES)
            body = _body(data, one.family)
            if body[:1] == b"p" and len(body) >= 1 + _TOKEN_BYTES and self._answers.take(self._loop.time()):
                one.sendto(b"o" + body[1 : 1 + _TOKEN_BYTES] + bytes(2), sender)


async def _exchange(address: IPAddress, protocol: int, message: bytes, is_answer: _Test) -> float:
    loop = asyncio.get_running_loop()
    with _open(address.version, protocol) as one:
        try:
            one.connect((str(address), 0))
            sent_at = loop.time()
            await loop.sock_sendall(one, message)
            while True:
                data = await loop.sock_recv(one, _LONGEST_BYTES)
                if is_answer(_body(data, one.family)):
                    return loop.time() - sent_at
        except OSError as error:
            raise UnreachableError(f"{address} cannot be sent to: {error.strerror}.") from error


def _open(version: int, protocol: int) -> socket.socket:
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    try:
        one = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
    except PermissionError as error:
        raise NotPermittedError("No right to open a raw socket.", remedy="burid needs root, or CAP_NET_RAW.") from error
    except OSError as error:
        raise SystemFault(f"No raw socket could be opened: {error.strerror}.") from error
    return one


def _body(data: bytes, family: int) -> bytes:
    """What follows the IP header, which IPv4's raw sockets give and IPv6's do not."""
    return data[(data[0] & 15) * 4 :] if family == socket.AF_INET and data else data


def _checksum(message: bytes) -> bytes:
    """RFC 1071."""
    total = sum(int.from_bytes(message[at : at + 2], "big") for at in range(0, len(message), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).to_bytes(2, "big")
