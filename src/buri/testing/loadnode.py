"""A node for loading a control server: real Noise and HTTP/2 on a real connection, and no more understanding than counting.

The HTTP/2 here is the little that one client with two streams needs (RFC 9113: windows opened wide at the start, settings
and pings acknowledged), so that a thousand nodes fit into one process beside the server that they load.
"""

from __future__ import annotations

import asyncio
import base64
import re
import struct
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import hpack

from buri.core.addresses import AddrPort
from buri.core.errors import BuriError, RefusedError, WireError
from buri.core.keys import DiscoPrivate, MachinePrivate, MachinePublic, NodePrivate
from buri.machine.mapframes import LENGTH_BYTES, decode
from buri.machine.noiseclient import NoiseClient
from buri.wire.tailcfg.mapping import MapRequest, encode
from buri.wire.tailcfg.node import Hostinfo, NetInfo
from buri.wire.tailcfg.register import RegisterAuth, RegisterRequest

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

VERSION = 142
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
ACK, END_STREAM, END_HEADERS = 1, 1, 4
WIDE_OPEN = (1 << 31) - 1
INITIAL_WINDOW = 65535
EARLY_MAGIC = b"\xff\xff\xffTS"  # an early payload, which a server may send before its first frame
MAX_CACHED_FRAMES = 512


class Server(NamedTuple):
    """Where the server listens, and its Noise key."""

    host: str
    port: int
    key: MachinePublic


class Text(NamedTuple):
    """One zstd frame of a map message: its JSON (or a part of it) and the IDs of the whole nodes it shows."""

    json: bytes
    nodes: tuple[int, ...]


class Frames:
    """Decodes map messages; what the server made once for all nodes is decoded once as well."""

    _WHOLE_NODE = re.compile(rb'"ID":(\d+),"StableID"')

    def __init__(self) -> None:
        self._known: dict[bytes, Text] = {}

    def decode(self, message: bytes) -> list[Text]:
        """The zstd frames of one map message (without its length)."""
        texts = []
        rest = memoryview(message)
        while rest:
            size_bytes = zstd.get_frame_size(rest)
            frame = bytes(rest[:size_bytes])
            rest = rest[size_bytes:]
            text = self._known.get(frame)
            if text is None:
                json = zstd.decompress(frame)
                text = Text(json, tuple(map(int, self._WHOLE_NODE.findall(json))))
                if len(self._known) >= MAX_CACHED_FRAMES:
                    self._known.clear()
                self._known[frame] = text
            texts.append(text)
        return texts


class LoadNode(asyncio.Protocol):
    """One node: `connect`, `register`, `open_map`; then it counts. A lost connection is told by `lost`.

    `peers` are the IDs of the whole nodes its map has shown since the stream was opened, its own among them;
    `received_bytes` what came off the wire. `watch` is a text to wait for, `seen_s` when it came (monotonic).
    `on_news` is called after each map message.
    """

    def __init__(self, number: int, server: Server, entropy: Callable[[int], bytes], frames: Frames) -> None:
        self.number = number
        self._server = server
        self._entropy = entropy
        self._frames = frames
        self._machine = MachinePrivate.from_entropy(entropy(32))
        self.key = NodePrivate.from_entropy(entropy(32)).public()
        self._disco = DiscoPrivate.from_entropy(entropy(32)).public()
        self._transport: asyncio.Transport | None = None
        self.peers: set[int] = set()
        self.received_bytes = 0
        self.messages = 0
        self.last_s = 0.0
        self.watch = b""
        self.seen_s = 0.0
        self.lost = False
        self.on_news: Callable[[LoadNode], None] = _nobody
        self._reset()

    def _reset(self) -> None:
        self._noise = NoiseClient(
            self._machine, self._server.key, VERSION, MachinePrivate.from_entropy(self._entropy(32))
        )
        self._head: bytearray | None = bytearray()
        self._h2 = bytearray()
        self._begun = False
        self._map = bytearray()
        self._map_stream = 0
        self._next_stream = 1
        self._statuses: dict[int, int] = {}
        self._bodies: dict[int, bytearray] = {}
        self._answers: dict[int, asyncio.Future[bytes]] = {}
        self._decoder = hpack.Decoder()
        self._ready: asyncio.Future[None] | None = None
        self._lost_because = "The server closed the connection."

    # ---- what a bench asks --------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Dial, upgrade, shake hands. Raises OSError or BuriError."""
        self._reset()
        self.lost = False
        self.peers.clear()
        loop = asyncio.get_running_loop()
        self._ready = loop.create_future()
        await loop.create_connection(lambda: self, self._server.host, self._server.port)
        await self._ready

    async def register(self, auth_key: str) -> None:
        """Register with an auth key."""
        answer = await self.ask_to_register(auth_key)
        if b'"MachineAuthorized":true' not in answer:
            raise RefusedError(f"The server did not take node {self.number}: {answer[:200]!r}.")

    async def ask_to_register(self, auth_key: str) -> bytes:
        """Ask with an auth key ("" for none); the server's answer, whatever it is."""
        return await self._call(
            "/machine/register",
            encode(
                RegisterRequest(
                    version=VERSION,
                    node_key=str(self.key),
                    auth=RegisterAuth(auth_key=auth_key) if auth_key else None,
                    hostinfo=self._hostinfo(),
                )
            ),
        )

    def open_map(self) -> None:
        """Ask for the stream of maps; nothing is awaited."""
        self._map_stream = self._request("/machine/map", self._map_request(stream=True, endpoint=None))

    async def tell_endpoint(self, endpoint: AddrPort) -> None:
        """Report one endpoint, as a client does whose address has changed."""
        await self._call("/machine/map", self._map_request(stream=False, endpoint=endpoint))

    async def own_addresses(self) -> list[str]:
        """What the server gave this node, by a whole map of one answer. Connects anew when the connection is gone."""
        if self._transport is None:
            await self.connect()
        body = await self._call("/machine/map", self._map_request(stream=False, endpoint=None, whole=True))
        node = decode(body[LENGTH_BYTES:]).node
        if not node:
            raise WireError("The server's map does not hold the node that asked.")
        return node.addresses or []

    def close(self) -> None:
        """Hang up without a word, as a client does whose link fails."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    # ---- requests -----------------------------------------------------------------------------------------------

    def _hostinfo(self) -> Hostinfo:
        return Hostinfo(
            os="linux", hostname=f"load-{self.number}", ipn_version="1.102.5", net_info=NetInfo(preferred_derp=1)
        )

    def _map_request(self, *, stream: bool, endpoint: AddrPort | None, whole: bool = False) -> bytes:
        return encode(
            MapRequest(
                version=VERSION,
                compress="zstd",
                keep_alive=True,
                node_key=str(self.key),
                disco_key=str(self._disco),
                stream=stream,
                omit_peers=not stream and not whole,
                hostinfo=self._hostinfo(),
                endpoints=[str(endpoint)] if endpoint is not None else None,
                endpoint_types=[1] if endpoint is not None else None,
            )
        )

    async def _call(self, path: str, body: bytes) -> bytes:
        stream = self._request(path, body)
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._answers[stream] = future
        return await future

    def _request(self, path: str, body: bytes) -> int:
        stream = self._next_stream
        self._next_stream += 2
        fields = {":method": "POST", ":scheme": "https", ":authority": "load.test", ":path": path}
        block = b"".join(
            b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()  # literal, never indexed
            for name, value in fields.items()
        )
        self._send(_frame(HEADERS, END_HEADERS, stream, block) + _frame(DATA, END_STREAM, stream, body))
        return stream

    def _send(self, data: bytes) -> None:
        if self._transport is None:
            raise WireError("The connection is gone.")
        self._transport.write(self._noise.seal(data))

    # ---- asyncio.Protocol ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        token = base64.b64encode(self._noise.initiation()).decode()
        transport.write(
            f"POST /ts2021 HTTP/1.1\r\nHost: {self._server.host}:{self._server.port}\r\n"
            "Upgrade: tailscale-control-protocol\r\nConnection: upgrade\r\n"
            f"X-Tailscale-Handshake: {token}\r\nContent-Length: 0\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        self.received_bytes += len(data)
        try:
            if self._head is not None:
                self._take_head(data)
            else:
                self._take(self._noise.receive(data))
        except BuriError as error:
            self._lost_because = str(error)
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.lost = True
        fault = WireError(str(exc) if exc is not None else self._lost_because)
        waiting: list[asyncio.Future[None] | asyncio.Future[bytes]] = [*self._answers.values()]
        if self._ready is not None:
            waiting.append(self._ready)
        for future in waiting:
            if not future.done():
                future.set_exception(fault)

    def _take_head(self, data: bytes) -> None:
        assert self._head is not None
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            return
        head, rest = bytes(self._head[:end]), bytes(self._head[end + 4 :])
        if not head.startswith(b"HTTP/1.1 101"):
            raise RefusedError(f"The server did not upgrade: {head.splitlines()[0]!r} {rest[:200]!r}.")
        self._head = None
        self._take(self._noise.receive(rest))

    # ---- HTTP/2 -------------------------------------------------------------------------------------------------

    def _take(self, plain: bytes) -> None:
        if self._ready is not None and self._noise.established and not self._ready.done():
            window = struct.pack(">HI", 4, WIDE_OPEN)
            more = struct.pack(">I", WIDE_OPEN - INITIAL_WINDOW)
            self._send(PREFACE + _frame(SETTINGS, 0, 0, window) + _frame(WINDOW_UPDATE, 0, 0, more))
            self._ready.set_result(None)
        buffer = self._h2
        buffer += plain
        start = 0
        if not self._begun:
            if len(buffer) < 9:
                return
            if buffer.startswith(EARLY_MAGIC):
                start = 9 + int.from_bytes(buffer[5:9], "big")
                if len(buffer) < start:
                    return
            self._begun = True
        while len(buffer) - start >= 9:
            length = int.from_bytes(buffer[start : start + 3], "big")
            end = start + 9 + length
            if len(buffer) < end:
                break
            stream = int.from_bytes(buffer[start + 5 : start + 9], "big")
            self._frame(buffer[start + 3], buffer[start + 4], stream, bytes(buffer[start + 9 : end]))
            start = end
        del buffer[:start]

    def _frame(self, kind: int, flags: int, stream: int, body: bytes) -> None:
        if kind == DATA:
            if stream == self._map_stream:
                self._take_map(body)
            else:
                self._bodies.setdefault(stream, bytearray()).extend(body)
        elif kind == HEADERS:
            fields = {str(name): str(value) for name, value in self._decoder.decode(body)}
            self._statuses[stream] = int(fields[":status"])
        elif kind == SETTINGS and not flags & ACK:
            self._send(_frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            self._send(_frame(PING, ACK, 0, body))
        elif kind in (RESET, GOAWAY):
            raise WireError(f"The server ended stream {stream} (HTTP/2 frame {kind}).")
        if kind in (DATA, HEADERS) and flags & END_STREAM:
            self._end(stream)

    def _end(self, stream: int) -> None:
        status, body = self._statuses.pop(stream, 0), bytes(self._bodies.pop(stream, b""))
        if stream == self._map_stream:
            raise WireError(f"The server ended the map stream (status {status}).")
        future = self._answers.pop(stream, None)
        if future is not None and not future.done():
            if status == 200:
                future.set_result(body)
            else:
                future.set_exception(RefusedError(f"The server answered {status}: {body[:200]!r}."))

    def _take_map(self, data: bytes) -> None:
        self._map += data
        while len(self._map) >= 4:
            end = 4 + int.from_bytes(self._map[:4], "little")
            if len(self._map) < end:
                break
            message = bytes(self._map[4:end])
            del self._map[:end]
            self.messages += 1
            self.last_s = time.monotonic()
            for text in self._frames.decode(message):
                self.peers.update(text.nodes)
                if self.watch and not self.seen_s and self.watch in text.json:
                    self.seen_s = self.last_s
            self.on_news(self)


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + body


def _nobody(_node: LoadNode) -> None:
    """Nobody asked to be told."""
