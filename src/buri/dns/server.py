"""The resolver that programs of this machine ask: UDP and TCP sockets in front of the netmap's names and a forwarder.

The sockets are bound to the tunnel's interface as well as to their address: an address alone would be answered to
everybody on the LAN who sends to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterable
from typing import cast

from buri.core.addresses import AddrPort
from buri.core.bindfault import bind_fault
from buri.core.errors import PeerError, WireError
from buri.dns.forwarder import Forwarder
from buri.machine.magicdns import NEGATIVE_TTL_S, POSITIVE_TTL_S, Absent, Forward, Found, Names
from buri.wire.dnsmessage import Query, ResponseCode, build_answer, build_failure, parse_query, truncated

TCP_IDLE_S = 45.0
MAX_CONNECTIONS = 64
_log = logging.getLogger("buri.dns")


class Resolver:
    """Answers one message after another; `names` may be replaced at any time."""

    def __init__(self) -> None:
        self.names = Names()
        self._forwarder = Forwarder()

    def use(self, names: Names) -> None:
        """Answer by other names and upstreams from now on."""
        self.names = names
        self._forwarder.forget()

    async def answer(self, message: bytes) -> tuple[bytes, Query] | None:
        """The whole answer, and the question; None for what deserves none."""
        try:
            query = parse_query(message)
        except WireError:
            failure = build_failure(message, ResponseCode.FORMAT_ERROR)
            return None if failure is None else (failure, _NO_QUERY)
        if not query.in_internet:
            return build_answer(query, code=ResponseCode.NOT_IMPLEMENTED, ttl_s=0), query
        match self.names.decide(query.name, query.type):
            case Found(values=values, zone=zone):
                return build_answer(query, values, ttl_s=POSITIVE_TTL_S, zone=zone), query
            case Absent(zone=zone):
                answer = build_answer(query, code=ResponseCode.NAME_ERROR, ttl_s=NEGATIVE_TTL_S, zone=zone)
                return answer, query
            case Forward(upstreams=upstreams):
                try:
                    return await self._forwarder.ask(query, message, upstreams), query
                except PeerError as error:
                    _log.debug("%s", error)
                    return build_answer(query, code=ResponseCode.SERVER_FAILURE, ttl_s=0), query


_NO_QUERY = Query(0, 0, "", 0, 0, b"", False, 512)


class DNSServer:
    """Keeps a resolver's sockets open on the addresses it is told."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._open: dict[AddrPort, tuple[asyncio.DatagramTransport, asyncio.Server]] = {}
        self._connections = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def addresses(self) -> tuple[AddrPort, ...]:
        """Where it answers now."""
        return tuple(self._open)

    async def listen(self, addresses: Iterable[AddrPort], device: str | None) -> None:
        """Answer on exactly these addresses. Raises InUseError, NotPermittedError or SystemFault; the others stay."""
        wanted = list(addresses)
        for address in [known for known in self._open if known not in wanted]:
            self._shut(address)
        for address in wanted:
            if address not in self._open:
                self._open[address] = await self._bind(address, device)

    async def close(self) -> None:
        """Stop answering."""
        for address in list(self._open):
            self._shut(address)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _shut(self, address: AddrPort) -> None:
        transport, server = self._open.pop(address)
        transport.close()
        server.close()

    async def _bind(self, address: AddrPort, device: str | None) -> tuple[asyncio.DatagramTransport, asyncio.Server]:
        loop = asyncio.get_running_loop()
        datagrams = _bound(address, socket.SOCK_DGRAM, device)
        try:
            stream = _bound(address, socket.SOCK_STREAM, device)
        except BaseException:
            datagrams.close()
            raise
        server = await asyncio.start_server(self._serve, sock=stream)
        transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=datagrams)
        return transport, server

    def heard(self, transport: asyncio.DatagramTransport, message: bytes, source: object) -> None:
        """A question by UDP."""
        task = asyncio.get_running_loop().create_task(self._reply(transport, message, source))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reply(self, transport: asyncio.DatagramTransport, message: bytes, source: object) -> None:
        found = await self._resolver.answer(message)
        if found is not None and not transport.is_closing():
            answer, query = found
            transport.sendto(truncated(answer, query, query.udp_bytes), source)  # type: ignore[arg-type]  # as it came

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._connections >= MAX_CONNECTIONS:
            writer.close()
            return
        self._connections += 1
        try:
            while True:
                head = await asyncio.wait_for(reader.readexactly(2), TCP_IDLE_S)
                message = await asyncio.wait_for(reader.readexactly(int.from_bytes(head, "big")), TCP_IDLE_S)
                found = await self._resolver.answer(message)
                if found is None:
                    return
                writer.write(len(found[0]).to_bytes(2, "big") + found[0])
                await asyncio.wait_for(writer.drain(), TCP_IDLE_S)
        except (asyncio.IncompleteReadError, TimeoutError, OSError):
            return  # the asker has all it wants
        finally:
            self._connections -= 1
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DNSServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)  # asyncio's own is no subclass of it

    def datagram_received(self, data: bytes, addr: object) -> None:
        if self._transport is not None:
            self._server.heard(self._transport, data, addr)

    def error_received(self, exc: Exception) -> None:
        """An asker that is gone by now: nobody misses the answer."""


def _bound(address: AddrPort, kind: socket.SocketKind, device: str | None) -> socket.socket:
    family = socket.AF_INET if address.address.version == 4 else socket.AF_INET6
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if kind is socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if device is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode() + b"\0")
        sock.bind((str(address.address), address.port))
    except OSError as error:
        with contextlib.suppress(OSError):
            sock.close()
        raise bind_fault(error, f"{address} (DNS)") from error
    return sock
