"""Serves an ASGI application (the console, the REST API) on the outer server, which keeps the socket for its upgrades.

Only ASGI's `http` part is spoken; there is no lifespan and no WebSocket. A body that comes in several messages is
streamed, so server-sent events work; the application is told of a client that went away. Source: the ASGI 3.0
specification, "HTTP & WebSocket ASGI Message Format".
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, MutableMapping
from typing import Any
from urllib.parse import unquote_to_bytes

from buri.control.noisefront.exchange import TEXT, Request, Response, sentence
from buri.core.addresses import AddrPort
from buri.core.errors import WireError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Coroutine[Any, Any, None]]


class ASGIHandler:
    """An `exchange.Handler` around an application."""

    def __init__(self, app: Application) -> None:
        self._app = app

    async def handle(self, request: Request) -> Response:
        """Run the application until it has sent the head; the rest of a body that is not over yet is streamed."""
        call = _Call(request)
        task = asyncio.get_running_loop().create_task(self._app(_scope(request), call.receive, call.send))
        task.add_done_callback(call.ended)
        try:
            return await call.response(task)
        except BaseException:
            await _cancel(task)
            raise


class _Call:
    """One request in the application's hands. Body messages wait in a queue of one: a slow client slows the application."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._asked = False
        self._gone = asyncio.Event()
        self._messages: asyncio.Queue[Message | None] = asyncio.Queue(1)
        self._over = False

    async def receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": self._request.body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self._gone.is_set():
            raise OSError("the client went away")
        await self._messages.put(message)

    def ended(self, _task: asyncio.Task[None]) -> None:
        self._over = True
        if self._messages.empty():
            self._messages.put_nowait(None)

    async def response(self, task: asyncio.Task[None]) -> Response:
        start = await self.next(task)
        if start is None:
            return sentence(500, "The server failed on this request; its log says why.")
        first = await self.next(task) or {}
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in start.get("headers", ())]
        kind = next((value for name, value in headers if name.lower() == "content-type"), TEXT)
        kept = tuple((name, value) for name, value in headers if name.lower() not in _OURS)
        more = bool(first.get("more_body"))
        return Response(
            status=start["status"],
            body=first.get("body", b""),
            content_type=kind,
            headers=kept,
            stream=_Rest(self, task) if more else None,
        )

    async def next(self, task: asyncio.Task[None]) -> Message | None:
        """The application's next message; None when it is done. Raises what the application raised."""
        if self._over and self._messages.empty():
            await task
            return None
        message = await self._messages.get()
        if message is None:
            await task
        return message

    async def leave(self, task: asyncio.Task[None]) -> None:
        """The client is gone or has all: end the application's part."""
        self._gone.set()
        await _cancel(task)


class _Rest:
    """The rest of a streamed body. A class, since a generator that was never begun would not clean up when closed."""

    def __init__(self, call: _Call, task: asyncio.Task[None]) -> None:
        self._call = call
        self._task = task
        self._more = True

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while self._more and (message := await self._call.next(self._task)) is not None:
            self._more = bool(message.get("more_body"))
            if body := message.get("body", b""):
                return bytes(body)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        await self._call.leave(self._task)


_OURS = frozenset({"content-type", "content-length", "connection", "transfer-encoding"})


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):  # it was told to end: how it does is its own matter
        await task


def _scope(request: Request) -> dict[str, Any]:
    raw_path, _, query = request.target.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "https" if request.secure else "http",
        "path": unquote_to_bytes(raw_path).decode("utf-8", "replace"),
        "raw_path": raw_path.encode("latin-1", "replace"),
        "query_string": query.encode("latin-1", "replace"),
        "root_path": "",
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in request.headers.items()],
        "client": _client(request.peer),
        "server": None,
    }


def _client(peer: str) -> tuple[str, int] | None:
    try:
        address = AddrPort.parse(peer)
    except WireError:
        return None
    return str(address.address), address.port
