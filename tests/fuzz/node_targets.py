"""What a node's own machine gives its daemon, and the relay its metrics' readers: HTTP on the LocalAPI's socket."""

from __future__ import annotations

import asyncio
import contextlib

import h11

from buri.engine.frontport import FrontStats
from buri.node.localapi.endpoints import Endpoints
from buri.node.localapi.server import _Connection
from buri.relay.metrics import answer
from buri.testing.fakenode import FakeNode
from buri.wire.localapi import PingResult
from fuzz.shells import KeptTransport, play
from fuzz.target import Input, Target


def _localapi(data: bytes) -> None:
    """Bytes from a user: every request gets an answer of its own, and none of them is "unforeseen"."""
    play(_serve_localapi(data))


async def _serve_localapi(data: bytes) -> None:
    input_ = Input(data)
    uid = 0 if input_.byte() % 2 else 54321
    node = FakeNode(running=True)
    node.pings = [PingResult(node_ip="100.64.0.2")]
    reader, transport = asyncio.StreamReader(), KeptTransport()
    protocol = asyncio.StreamReaderProtocol(reader)
    protocol.connection_made(transport)
    writer = asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop())
    connection = _Connection(Endpoints(node), node, uid, "1.0", reader, writer)
    reader.feed_data(input_.rest())
    reader.feed_eof()
    try:
        async with asyncio.timeout(5):
            await connection.run()
    except h11.RemoteProtocolError as error:
        await connection.refuse(error)
    with contextlib.suppress(asyncio.CancelledError):
        protocol.connection_lost(None)
    writer.close()
    assert not transport.out or transport.out.startswith(b"HTTP/1.1 ")


def _metrics(data: bytes) -> None:
    """A request's head to the relay's metrics."""
    assert answer(data, _no_stats).startswith(b"HTTP/1.1 ")


def _no_stats() -> FrontStats:
    return FrontStats(counters={"accepts": 1}, clients=())


def _ask(method: str, path: str, body: str = "", more: str = "") -> bytes:
    head = f"{method} /localapi/v0/{path} HTTP/1.1\r\nHost: local-tailscaled.sock\r\n{more}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body.encode()


TARGETS = (
    Target(
        "localapi",
        _localapi,
        [
            b"\1" + _ask("GET", "status?peers=false"),
            b"\1"
            + _ask("PATCH", "prefs", '{"WantRunning":true,"WantRunningSet":true,"AdvertiseRoutes":["10.0.0.0/8"]}'),
            b"\1" + _ask("POST", "start", '{"AuthKey":"k","UpdatePrefs":{"ControlURL":"http://10.77.0.1"}}'),
            b"\1" + _ask("POST", "check-prefs", '{"Hostname":"\\ud800"}'),
            b"\1" + _ask("PATCH", "prefs", '{"x":' + "[" * 5000),
            b"\0" + _ask("POST", "ping?ip=100.64.0.2&type=disco&size=100") + _ask("GET", "whois?addr=100.64.0.2%3A1"),
            b"\1" + _ask("GET", "watch-ipn-bus?mask=2")[:-4] + b"\r\n\r\n",
            b"\1GET //[ HTTP/1.1\r\nHost: local-tailscaled.sock\r\n\r\n",
            b"\0" + _ask("POST", "shutdown") + _ask("HEAD", "profiles/current", "", "Origin: x\r\n"),
        ],
    ),
    Target(
        "relay_metrics", _metrics, [b"GET /metrics HTTP/1.1\r\n\r\n", b"HEAD /debug/vars HTTP/1.0\r\n\r\n", b"POST / x"]
    ),
)
