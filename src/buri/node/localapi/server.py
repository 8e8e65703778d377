"""LocalAPI's HTTP/1.1 server on a Unix socket (wire reference 1g, "Transport").

A shell: h11 is the protocol, `Endpoints` knows the answers. One task a connection; while a request is being answered,
the connection is read on, so that a caller who goes away ends a ping or a watch at once.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from urllib.parse import parse_qsl, urlsplit

import h11

from buri import __version__
from buri.core.errors import BuriError, InternalError
from buri.node.localapi.backend import Backend
from buri.node.localapi.endpoints import Endpoints
from buri.node.localapi.exchange import JSON, TEXT, Refusal, Request, Response, Stream, failure
from buri.node.localapi.rights import peer_uid, rights_of
from buri.wire.localapi import BASE_PATH, CAPABILITY_VERSION, HOST

log = logging.getLogger("buri.node.localapi")

BODY_LIMIT_BYTES = 1 << 20
READ_BYTES = 1 << 16
CLOSE_S = 2.0


class LocalAPIServer:
    """Serves a backend on a listening socket, which stays the caller's to close and unlink."""

    def __init__(self, backend: Backend, listener: socket.socket, *, version: str = __version__) -> None:
        self._backend = backend
        self._endpoints = Endpoints(backend)
        self._listener = listener
        self._version = version
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Take connections from now on."""
        self._listener.setblocking(False)
        self._accepting = asyncio.get_running_loop().create_task(self._accept())

    async def close(self) -> None:
        """Take no more, let answers under way out, end watches."""
        if self._accepting is None:
            return
        self._accepting.cancel()
        await asyncio.wait([self._accepting])
        if self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks, timeout=CLOSE_S)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._listener)
            except OSError as error:  # out of descriptors, or the caller aborted: the next one may do
                log.warning("A LocalAPI connection could not be taken: %s", error)
                await asyncio.sleep(0.1)
                continue
            task = loop.create_task(self._serve(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: socket.socket) -> None:
        uid = peer_uid(connection)
        reader, writer = await asyncio.open_unix_connection(sock=connection)
        talk = _Connection(self._endpoints, self._backend, uid, self._version, reader, writer)
        try:
            await talk.run()
        except h11.RemoteProtocolError as error:
            await talk.refuse(error)
        except ConnectionError as error:
            log.debug("A LocalAPI connection ended: %s", error)
        finally:
            writer.close()


class _Connection:
    """One connection: requests one after another until either side has enough."""

    def __init__(
        self,
        endpoints: Endpoints,
        backend: Backend,
        uid: int | None,
        version: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._endpoints = endpoints
        self._backend = backend
        self._uid = uid
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.SERVER)
        self._waiting_bytes = 0
        self._common = [
            ("Tailscale-Version", version),
            ("Tailscale-Cap", str(CAPABILITY_VERSION)),
            ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
            ("X-Frame-Options", "DENY"),
            ("X-Content-Type-Options", "nosniff"),
        ]

    async def run(self) -> None:
        while (head := await self._next_event()) is not None:
            assert isinstance(head, h11.Request)
            body = bytearray()
            while isinstance(event := await self._next_event(), h11.Data):
                body += event.data
                if len(body) > BODY_LIMIT_BYTES:
                    await self._send(Response(413, b"the body is too large\n", TEXT), head.method)
                    return
            if event is None or not await self._answer(head, bytes(body)):
                return
            if self._http.our_state is h11.MUST_CLOSE:
                return
            self._http.start_next_cycle()

    async def refuse(self, error: h11.RemoteProtocolError) -> None:
        """Say of bytes that are no HTTP what is wrong with them, where an answer is still due."""
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            await self._send(Response(error.error_status_hint, f"{error}\n".encode(), TEXT), b"")

    async def _next_event(self) -> h11.Event | None:
        """The next event of the request; None at the end of the connection."""
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await self._reader.read(READ_BYTES))
            elif isinstance(event, h11.ConnectionClosed):
                return None
            elif isinstance(event, h11.Request | h11.Data | h11.EndOfMessage):
                self._waiting_bytes = 0
                return event

    async def _answer(self, head: h11.Request, body: bytes) -> bool:
        """Answer while watching for the caller to go; False when it went."""
        work = asyncio.ensure_future(self._respond_and_send(head, body))
        gone = asyncio.ensure_future(self._until_gone())
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                return False
            work.result()
            return not gone.done()
        finally:
            for task in (work, gone):
                task.cancel()
            await asyncio.wait((work, gone))

    async def _until_gone(self) -> None:
        while data := await self._reader.read(READ_BYTES):
            self._waiting_bytes += len(data)
            if self._waiting_bytes > READ_BYTES:
                return  # it sends on and on without waiting for answers: no client of ours
            self._http.receive_data(data)

    async def _respond_and_send(self, head: h11.Request, body: bytes) -> None:
        try:
            found = await self._endpoints.respond(await self._read_request(head, body))
        except Refusal as refusal:
            found = refusal.response
        except BuriError as error:
            found = failure(error)
        except Exception:
            log.exception("A LocalAPI request failed in an unforeseen way; please report this.")
            found = failure(InternalError("burid failed in an unforeseen way; its log says more."))
        if isinstance(found, Response):
            await self._send(found, head.method)
            return
        with found.source as pieces:
            await self._stream(found, pieces)

    async def _read_request(self, head: h11.Request, body: bytes) -> Request:
        headers = {name: value.decode("latin-1") for name, value in head.headers}
        if headers.get(b"host", "") not in ("", HOST) or headers.get(b"referer") or headers.get(b"origin"):
            raise Refusal(403, "invalid localapi request")
        try:
            target = urlsplit(head.target.decode("latin-1"))
        except ValueError as error:  # "//[" would be the start of an IPv6 address
            raise Refusal(400, "invalid request target") from error
        if not target.path.startswith(BASE_PATH):
            raise Refusal(404, "404 page not found")
        operator = (await self._backend.prefs()).operator_user
        return Request(
            head.method.decode("latin-1"),
            target.path.removeprefix(BASE_PATH),
            dict(parse_qsl(target.query)),
            body,
            rights_of(self._uid, operator),
        )

    async def _send(self, response: Response, method: bytes) -> None:
        headers = [*self._common, *response.headers]
        if response.status != 204:
            headers += [("Content-Type", response.content_type), ("Content-Length", str(len(response.body)))]
        self._write(h11.Response(status_code=response.status, headers=headers))
        if response.body and method != b"HEAD":
            self._write(h11.Data(data=response.body))
        self._write(h11.EndOfMessage())
        await self._writer.drain()

    async def _stream(self, stream: Stream, pieces: AsyncIterator[bytes]) -> None:
        self._write(h11.Response(status_code=200, headers=[*self._common, ("Content-Type", JSON)]))
        await self._writer.drain()
        async for piece in pieces:
            self._write(h11.Data(data=piece))
            await self._writer.drain()
        self._write(h11.EndOfMessage())
        await self._writer.drain()

    def _write(self, event: h11.Response | h11.Data | h11.EndOfMessage) -> None:
        data = self._http.send(event)
        if data:
            self._writer.write(data)
