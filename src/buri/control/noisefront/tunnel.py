"""One Noise session: bytes in and out of it, and the HTTP/2 server that runs inside.

Streams are answered side by side. What a stream may send is bounded by HTTP/2's flow control and by the transport's
buffer, so a slow client waits alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from buri.control.noisefront.exchange import JSON, Request, Response, sentence
from buri.core.errors import PeerError, SystemFault, WireError
from buri.core.keys import MachinePublic
from buri.machine.noiseserver import NoiseServer

MAX_BODY_BYTES = 1 << 20
MAX_STREAMS = 32
MAX_GATHERED_BYTES = 64 << 10  # frames that leave in one system call
IDLE_TIMEOUT_S = 120.0  # anybody may open a session: one without a whole request ends
_log = logging.getLogger(__name__)


class Reply:
    """How a handler answers one stream: whole, or a head and then chunks."""

    def __init__(self, tunnel: Tunnel, stream_id: int) -> None:
        self._tunnel = tunnel
        self._stream_id = stream_id
        self.begun = False

    async def send(self, response: Response) -> None:
        """The whole answer."""
        self.begin(response.status, response.content_type)
        if response.body:
            await self._tunnel.write(self._stream_id, response.body, last=True)
        else:
            await self.finish()

    def begin(self, status: int = 200, content_type: str = JSON) -> None:
        """The head of an answer whose chunks follow; it goes out with the first."""
        self.begun = True
        self._tunnel.send_head(self._stream_id, [(":status", str(status)), ("content-type", content_type)])

    async def finish(self) -> None:
        """No more chunks."""
        self._tunnel.end_stream(self._stream_id)

    async def write(self, data: bytes) -> None:
        """One chunk; waits until the client and the connection can take it. Raises ConnectionError when it is gone."""
        await self._tunnel.write(self._stream_id, data)


MachineHandler = Callable[[MachinePublic, Request, Reply], Awaitable[None]]
TunnelMaker = Callable[[bytes, str], "tuple[Tunnel, bytes]"]


class _Stream:
    """What is known of one open stream."""

    __slots__ = ("body", "headers", "task", "writable")

    def __init__(self, headers: dict[str, str]) -> None:
        self.headers = headers
        self.body = bytearray()
        self.task: asyncio.Task[None] | None = None
        self.writable = asyncio.Event()


class Tunnel(asyncio.Protocol):
    """A client's Noise session, from its 101 on."""

    def __init__(
        self, noise: NoiseServer, handler: MachineHandler, peer: str, on_end: Callable[[Tunnel], None]
    ) -> None:
        self._noise = noise
        self._handler = handler
        self._peer = peer
        self._on_end = on_end
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, _Stream] = {}
        self._idle: asyncio.TimerHandle | None = None
        self._drained = asyncio.Event()
        self._drained.set()
        config = h2.config.H2Configuration(
            client_side=False, header_encoding="latin-1"
        )  # whatever bytes come, no header breaks us
        self._h2 = h2.connection.H2Connection(config)
        self._h2.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
                h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: MAX_BODY_BYTES,
            },
        )

    # ---- asyncio.Protocol ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._h2.initiate_connection()
        self._flush()
        self._await_request()

    def data_received(self, data: bytes) -> None:
        try:
            plain = self._noise.receive(data)
            if not plain:
                return
            for event in self._h2.receive_data(plain):
                self._handle(event)
        except (PeerError, h2.exceptions.ProtocolError) as error:
            _log.info("The session of %s ended: %s", self._peer, error)
            self.close()
            return
        self._flush()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._drained.clear()
        if self._transport is not None:
            self._transport.pause_reading()  # what a client asks makes answers (pings too): it must take them first

    def resume_writing(self) -> None:
        self._drained.set()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._forget_idle()
        self._drained.set()
        for stream in self._streams.values():
            stream.writable.set()
            if stream.task is not None:
                stream.task.cancel()
        self._streams.clear()
        self._on_end(self)

    def close(self) -> None:
        """Say goodbye and end the connection."""
        if self._transport is not None:
            with contextlib.suppress(h2.exceptions.ProtocolError):
                self._h2.close_connection()
                self._flush()
            self._transport.close()

    def _await_request(self) -> None:
        self._forget_idle()
        if self._transport is not None and not any(stream.task for stream in self._streams.values()):
            self._idle = asyncio.get_running_loop().call_later(IDLE_TIMEOUT_S, self.close)

    def _forget_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    # ---- events -------------------------------------------------------------------------------------------------

    def _handle(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived(stream_id=int(stream_id), headers=headers):
                self._streams[stream_id] = _Stream({str(name): str(value) for name, value in headers or ()})
            case h2.events.DataReceived(stream_id=int(stream_id), data=data):
                self._take_body(stream_id, data or b"", event.flow_controlled_length or 0)
            case h2.events.StreamEnded(stream_id=int(stream_id)):
                self._begin(stream_id)
            case h2.events.StreamReset(stream_id=int(stream_id)):
                stream = self._streams.pop(stream_id, None)
                if stream is not None:
                    stream.writable.set()
                    if stream.task is not None:
                        stream.task.cancel()
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                for stream in self._streams.values():
                    stream.writable.set()
            case h2.events.ConnectionTerminated():
                self.close()
            case _:
                pass

    def _take_body(self, stream_id: int, data: bytes, flow_bytes: int) -> None:
        if flow_bytes:
            self._h2.acknowledge_received_data(flow_bytes, stream_id)
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        stream.body += data
        if len(stream.body) > MAX_BODY_BYTES:
            del self._streams[stream_id]
            self._h2.reset_stream(stream_id, h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)

    def _begin(self, stream_id: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        request = Request(
            method=stream.headers.get(":method", ""),
            target=stream.headers.get(":path", ""),
            headers=stream.headers,
            body=bytes(stream.body),
            secure=True,
            peer=self._peer,
        )
        stream.body.clear()
        self._forget_idle()
        stream.task = asyncio.get_running_loop().create_task(self._serve(stream_id, request), name=request.target)

    async def _serve(self, stream_id: int, request: Request) -> None:
        reply = Reply(self, stream_id)
        try:
            await self._handler(self._noise.machine, request, reply)
        except ConnectionError:
            pass  # the client went away; connection_lost tells the rest
        except WireError as error:
            await self._fail(reply, stream_id, sentence(400, str(error)))
        except SystemFault as error:  # our disk's affair, not this client's: it comes again
            _log.error("%s is not answered: %s", request.path, error)
            text = "The server's own system is in trouble; its log says which. Nothing was changed."
            await self._fail(reply, stream_id, sentence(503, text))
        except Exception:
            _log.exception("Answering %s failed", request.path)
            await self._fail(reply, stream_id, sentence(500, "The server failed on this request; its log says why."))
        finally:
            self._streams.pop(stream_id, None)
            self._await_request()

    async def _fail(self, reply: Reply, stream_id: int, response: Response) -> None:
        with contextlib.suppress(ConnectionError, h2.exceptions.ProtocolError):
            if reply.begun:
                self._h2.reset_stream(stream_id, h2.errors.ErrorCodes.INTERNAL_ERROR)
                self._flush()
            else:
                await reply.send(response)

    # ---- output -------------------------------------------------------------------------------------------------

    def send_head(self, stream_id: int, headers: list[tuple[str, str]]) -> None:
        self._alive(stream_id)
        self._h2.send_headers(stream_id, headers)

    def end_stream(self, stream_id: int) -> None:
        if stream_id in self._streams and self._transport is not None:
            self._h2.end_stream(stream_id)
            self._flush()

    async def write(self, stream_id: int, data: bytes, *, last: bool = False) -> None:
        view = memoryview(data)
        gathered_bytes = 0
        while view:
            await self._drained.wait()
            stream = self._alive(stream_id)
            room = min(self._h2.local_flow_control_window(stream_id), self._h2.max_outbound_frame_size, len(view))
            if room <= 0:
                self._flush()
                stream.writable.clear()
                await stream.writable.wait()
                continue
            self._h2.send_data(stream_id, bytes(view[:room]), end_stream=last and room == len(view))
            view = view[room:]
            gathered_bytes += room
            if not view or gathered_bytes >= MAX_GATHERED_BYTES:
                self._flush()
                gathered_bytes = 0

    def _alive(self, stream_id: int) -> _Stream:
        stream = self._streams.get(stream_id)
        if stream is None or self._transport is None:
            raise ConnectionResetError("The client ended the stream.")
        return stream

    def _flush(self) -> None:
        out = self._h2.data_to_send()
        if out and self._transport is not None:
            self._transport.write(self._noise.seal(out))
