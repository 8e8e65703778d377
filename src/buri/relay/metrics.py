"""A relay's figures for those who watch it: `/metrics` (Prometheus) and `/debug/vars` (derper's expvar, same names).

Served on an address of its own, never by the public front door: the figures tell who uses the relay, and how much.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable
from typing import Self

import msgspec

from buri.core.addresses import AddrPort
from buri.core.bindfault import bind_fault
from buri.core.errors import StateError
from buri.engine.frontport import FrontStats

# Names that can fall; all others only grow.
_GAUGES = frozenset({"curr_connections", "curr_home_connections", "front_connections"})
_HEAD_TIMEOUT_S = 5.0
_LONGEST_HEAD_BYTES = 8 << 10
_REQUEST = re.compile(rb"(GET|HEAD) ([^ ?]*)[^ ]* HTTP/1\.[01]\r\n")


def expvar(stats: FrontStats) -> bytes:
    """The figures as `derper` shows them at `/debug/vars`."""
    front = {name: value for name, value in stats.counters.items() if not _is_relays(name)}
    relay = {name: value for name, value in stats.counters.items() if _is_relays(name)}
    return msgspec.json.encode({"derp": relay, "buri": front}) + b"\n"


def prometheus(stats: FrontStats) -> bytes:
    """The figures in Prometheus' text format."""
    lines: list[str] = []
    for name, value in sorted(stats.counters.items()):
        gauge = name in _GAUGES
        full = f"{'derp' if _is_relays(name) else 'buri'}_{name}{'' if gauge else '_total'}"
        lines += [f"# TYPE {full} {'gauge' if gauge else 'counter'}", f"{full} {value}"]
    return "\n".join([*lines, ""]).encode()


class MetricsServer:
    """Answers GET and HEAD for the two pages, one request a connection."""

    def __init__(self, stats: Callable[[], FrontStats], server: asyncio.Server) -> None:
        self._stats = stats
        self._server = server

    @classmethod
    async def open(cls, address: AddrPort, stats: Callable[[], FrontStats]) -> Self:
        """Listen on `address`. Raises InUseError, NotPermittedError or SystemFault."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await _serve(stats, reader, writer)

        try:
            server = await asyncio.start_server(
                serve, str(address.address), address.port, limit=_LONGEST_HEAD_BYTES, backlog=16
            )
        except OSError as error:
            raise bind_fault(error, str(address), "--metrics") from error
        return cls(stats, server)

    def listening(self) -> AddrPort:
        """The address really bound."""
        host, port = self._server.sockets[0].getsockname()[:2]
        return AddrPort.parse(f"[{host}]:{port}")

    async def close(self) -> None:
        """Stop listening."""
        self._server.close()
        await self._server.wait_closed()


async def _serve(stats: Callable[[], FrontStats], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        async with asyncio.timeout(_HEAD_TIMEOUT_S):
            head = await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(head, stats))
        await writer.drain()
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError, ConnectionError):
        pass  # whoever cannot ask in time and in 8 KiB gets no answer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):  # it left before we did
            await writer.wait_closed()


def answer(head: bytes, stats: Callable[[], FrontStats]) -> bytes:
    """The whole answer to a request's head."""
    match = _REQUEST.match(head)
    if match is None:
        return _answer("405 Method Not Allowed", "text/plain", b"Only GET and HEAD are answered here.\n")
    method, path = match.groups()
    try:
        if path == b"/metrics":
            made = _answer("200 OK", "text/plain; version=0.0.4", prometheus(stats()))
        elif path == b"/debug/vars":
            made = _answer("200 OK", "application/json", expvar(stats()))
        else:
            made = _answer("404 Not Found", "text/plain", b"There are /metrics and /debug/vars.\n")
    except StateError as error:
        made = _answer("503 Service Unavailable", "text/plain", f"{error}\n".encode())
    return made.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if method == b"HEAD" else made


def _answer(status: str, kind: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def _is_relays(name: str) -> bool:
    return not name.startswith(("front_", "stun_"))
