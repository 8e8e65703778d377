"""The outer HTTP/1.1 server: one connection, plain requests, and the upgrade to a Noise session.

It listens on TCP, or on the Unix socket where the front door hands connections over behind a PROXY header; then every
answer ends its connection, because a proxy's pooled one would carry strangers' requests (and `/derp`) to us.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections.abc import AsyncIterator
from http import HTTPStatus
from ipaddress import ip_address

import h11

from buri.control.noisefront.exchange import Handler, Request, Response, sentence
from buri.control.noisefront.tunnel import Tunnel, TunnelMaker
from buri.core.addresses import AddrPort
from buri.core.errors import WireError
from buri.wire.proxyprotocol import parse_proxy_header

UPGRADE = "tailscale-control-protocol"
HANDSHAKE_HEADER = "x-tailscale-handshake"
MAX_BODY_BYTES = 1 << 20
MAX_AHEAD_BYTES = 64 << 10
HEAD_TIMEOUT_S = 10.0
_log = logging.getLogger(__name__)


class HTTPConnection(asyncio.Protocol):
    """One client's connection until it ends or becomes a tunnel."""

    def __init__(self, handler: Handler, make_tunnel: TunnelMaker, *, behind_front_door: bool) -> None:
        self._handler = handler
        self._make_tunnel = make_tunnel
        self._behind = behind_front_door
        self._awaiting_proxy = behind_front_door
        self._early = bytearray()
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=64 << 10)
        self._transport: asyncio.Transport | None = None
        self._request: h11.Request | None = None
        self._body = bytearray()
        self._task: asyncio.Task[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._secure = False
        self._peer = ""
        self._writable = asyncio.Event()
        self._writable.set()
        self._streaming = False

    # ---- asyncio.Protocol ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        name = transport.get_extra_info("peername")
        if isinstance(name, tuple):  # a Unix socket has none
            self._peer = str(AddrPort(ip_address(name[0].partition("%")[0]), name[1]))
        self._await_head()

    def data_received(self, data: bytes) -> None:
        if self._awaiting_proxy:
            self._early += data
            try:
                found = parse_proxy_header(self._early)
            except WireError as error:
                _log.warning("A connection on the front door's socket was refused: %s", error)
                self._close()
                return
            if found is None:
                return  # the head's deadline runs
            header, length = found
            self._secure = header.tls
            self._peer = str(header.source or "")
            self._awaiting_proxy = False
            data = bytes(self._early[length:])
            self._early.clear()
        if data:
            self._h11.receive_data(data)
            self._advance()
        if self._task is not None and self._transport is not None and len(self._h11.trailing_data[0]) > MAX_AHEAD_BYTES:
            self._transport.pause_reading()  # requests sent ahead wait in the kernel, not here

    def eof_received(self) -> bool:
        self._h11.receive_data(b"")
        if self._task is not None:
            # A client that only stopped sending still wants its answer; an endless one it would never hear the end of.
            return not self._streaming
        self._advance()
        return False

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._writable.set()
        if self._task is not None:
            self._task.cancel()
        self._transport = None

    # ---- requests -----------------------------------------------------------------------------------------------

    def _await_head(self) -> None:
        self._disarm()
        self._deadline = asyncio.get_running_loop().call_later(HEAD_TIMEOUT_S, self._close)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _advance(self) -> None:
        while self._transport is not None:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                self._refuse(sentence(error.error_status_hint, f"That is not a request I understand: {error}."))
                return
            if isinstance(event, h11.Request):
                self._request = event
                self._body.clear()
            elif isinstance(event, h11.Data):
                self._body += event.data
                if len(self._body) > MAX_BODY_BYTES:
                    self._refuse(sentence(413, "The request's body is over 1 MiB."))
                    return
            elif isinstance(event, h11.EndOfMessage):
                self._disarm()
                self._dispatch()
                return
            elif isinstance(event, h11.ConnectionClosed):
                self._close()
                return
            else:  # NEED_DATA or PAUSED
                if self._h11.they_are_waiting_for_100_continue:
                    go_on = h11.InformationalResponse(status_code=100, reason=b"Continue", headers=[])
                    self._transport.write(self._h11.send(go_on) or b"")
                return

    def _dispatch(self) -> None:
        assert self._request is not None
        assert self._transport is not None
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in self._request.headers}
        request = Request(
            method=self._request.method.decode("latin-1"),
            target=_origin_form(self._request.target.decode("latin-1")),
            headers=headers,
            body=bytes(self._body),
            secure=self._secure,
            peer=self._peer,
        )
        if request.path == "/ts2021":
            self._upgrade(request)
            return
        if request.path == "/derp":
            # A proxy's pooled connection brought a relay client here: end it, so that the next one is dialled anew.
            self._refuse(sentence(421, "The relay is not behind this connection; dial again."))
            return
        self._task = asyncio.get_running_loop().create_task(self._answer(request), name=f"http {request.path}")

    async def _answer(self, request: Request) -> None:
        try:
            response = await self._handler(request)
        except Exception:
            _log.exception("Answering %s %s failed", request.method, request.path)
            response = sentence(500, "The server failed on this request; its log says why.")
        if self._transport is None:
            if response.stream is not None:
                await _close(response.stream)
            return
        close = self._behind or "x-forwarded-for" in request.headers or response.status >= 400
        close = close or response.stream is not None
        self._write(response, close=close)
        if response.stream is not None:
            await self._stream(response.stream)
        self._task = None
        if close or self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            self._close()  # also when the client went away in the middle
            return
        self._h11.start_next_cycle()
        self._await_head()
        self._transport.resume_reading()
        self._advance()

    def _write(self, response: Response, *, close: bool) -> None:
        assert self._transport is not None
        head_only = self._request is not None and self._request.method == b"HEAD"
        headers = [("Content-Type", response.content_type), *response.headers]
        if response.stream is None:
            headers.append(("Content-Length", str(len(response.body))))
        if close:
            headers.append(("Connection", "close"))
        reason = HTTPStatus(response.status).phrase
        head = h11.Response(status_code=response.status, reason=reason.encode(), headers=headers)
        out = self._h11.send(head) or b""
        if response.body and not head_only:
            out += self._h11.send(h11.Data(data=response.body)) or b""
        if response.stream is None or head_only:
            out += self._h11.send(h11.EndOfMessage()) or b""
        self._transport.write(out)

    async def _stream(self, chunks: AsyncIterator[bytes]) -> None:
        """Send what comes until it ends or the client goes; a client that reads slowly makes its own stream wait."""
        self._streaming = True
        try:
            async for chunk in chunks:
                await self._writable.wait()
                if self._transport is None or self._h11.our_state is not h11.SEND_BODY:
                    return
                self._transport.write(self._h11.send(h11.Data(data=chunk)) or b"")
            if self._transport is not None and self._h11.our_state is h11.SEND_BODY:
                self._transport.write(self._h11.send(h11.EndOfMessage()) or b"")
        except Exception:
            _log.exception("A streamed answer failed in the middle")  # the head is out: all that is left is to end it
        finally:
            await _close(chunks)

    def _refuse(self, response: Response) -> None:
        if self._transport is not None and self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._write(response, close=True)
        self._close()

    def _close(self) -> None:
        self._disarm()
        if self._transport is not None:
            self._transport.close()

    # ---- the upgrade --------------------------------------------------------------------------------------------

    def _upgrade(self, request: Request) -> None:
        if request.method != "POST" or request.headers.get("upgrade", "").lower() != UPGRADE:
            hint = "A proxy in between that strips the Upgrade header is the usual cause."
            self._refuse(sentence(400, f"/ts2021 wants a POST that upgrades to {UPGRADE}. {hint}"))
            return
        try:
            handshake = request.headers.get(HANDSHAKE_HEADER, "").encode("latin-1")
            initiation = base64.b64decode(handshake, validate=True)
            tunnel, first = self._make_tunnel(initiation, self._peer)
        except (binascii.Error, WireError) as error:
            self._refuse(sentence(400, f"The Noise handshake was refused: {error}"))
            return
        assert self._transport is not None
        switch = h11.InformationalResponse(
            status_code=101,
            reason=b"Switching Protocols",
            headers=[("Upgrade", UPGRADE), ("Connection", "upgrade")],
        )
        head = self._h11.send(switch) or b""
        trailing = self._h11.trailing_data[0]
        self._disarm()
        self._hand_over(tunnel, head + first, trailing)

    def _hand_over(self, tunnel: Tunnel, out: bytes, trailing: bytes) -> None:
        transport, self._transport = self._transport, None
        assert transport is not None
        transport.write(out)
        transport.set_protocol(tunnel)
        tunnel.connection_made(transport)
        if trailing:
            tunnel.data_received(trailing)


async def _close(chunks: AsyncIterator[bytes]) -> None:
    if (close := getattr(chunks, "aclose", None)) is not None:
        await close()


def _origin_form(target: str) -> str:
    """A request's target without scheme and host, which proxies may put before it."""
    if not target.startswith("/"):
        slash = target.find("/", target.find("://") + 3) if "://" in target else -1
        return target[slash:] if slash >= 0 else "/"
    return target
