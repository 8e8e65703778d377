"""An ASGI application behind the outer server: bodies, streams, clients that go away, applications that fail."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from buri.control.noisefront.asgi import Application, ASGIHandler, Receive, Send
from buri.control.noisefront.exchange import Request
from buri.control.noisefront.listener import NoiseFront
from buri.control.noisefront.tunnel import Reply
from buri.core.addresses import AddrPort
from buri.core.keys import MachinePrivate, MachinePublic

KEY = MachinePrivate.from_entropy(b"k" * 32)
HEAD = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/event-stream"), (b"x-a", b"b")],
}


async def nobody(_machine: MachinePublic, _request: Request, _reply: Reply) -> None:
    raise AssertionError("no session was opened")


@contextlib.asynccontextmanager
async def served(app: Application) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    front = NoiseFront(KEY, ASGIHandler(app).handle, nobody)
    bound = await front.listen_tcp(AddrPort.parse("127.0.0.1:0"))
    reader, writer = await asyncio.open_connection("127.0.0.1", bound.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        await front.close()


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 20))


def test_the_scope_tells_path_query_headers_body_and_client() -> None:
    seen: dict[str, Any] = {}

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        seen.update(scope)
        seen["body"] = (await receive())["body"]
        await send({"type": "http.response.start", "status": 201, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"done"})

    async def main() -> None:
        async with served(app) as (reader, writer):
            writer.write(b"POST /a%20b?x=1 HTTP/1.1\r\nHost: h\r\nCookie: c=1\r\nContent-Length: 2\r\n\r\nhi")
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            assert head.startswith("HTTP/1.1 201 ")
            assert "Content-Length: 4" in head
            assert await reader.readexactly(4) == b"done"

    run(main)
    assert (seen["path"], seen["raw_path"], seen["query_string"], seen["body"]) == ("/a b", b"/a%20b", b"x=1", b"hi")
    assert (b"cookie", b"c=1") in seen["headers"]
    assert seen["client"][0] == "127.0.0.1"


def test_a_body_in_pieces_is_sent_piece_by_piece() -> None:
    second = asyncio.Event()

    async def app(_scope: Any, _receive: Receive, send: Send) -> None:
        await send(HEAD)
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await second.wait()
        await send({"type": "http.response.body", "body": b"two"})

    async def main() -> None:
        async with served(app) as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"x-a: b" in head
            assert b"Connection: close" in head
            assert await reader.readuntil(b"one\r\n") == b"3\r\none\r\n"
            second.set()
            assert await reader.read() == b"3\r\ntwo\r\n0\r\n\r\n"

    run(main)


@pytest.mark.parametrize("waits", [True, False])
def test_an_application_ends_when_its_client_goes(waits: bool) -> None:
    over = asyncio.Event()

    async def app(_scope: Any, receive: Receive, send: Send) -> None:
        try:
            await receive()
            await send(HEAD)
            while True:
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
                if waits:
                    await receive()
        finally:
            over.set()

    async def main() -> None:
        async with served(app) as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            writer.transport.abort()
            await over.wait()

    run(main)


def test_an_application_that_fails_before_its_head_gives_a_500(caplog: pytest.LogCaptureFixture) -> None:
    async def app(_scope: Any, _receive: Receive, _send: Send) -> None:
        raise RuntimeError("broken")

    async def main() -> None:
        async with served(app) as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            assert b" 500 " in await reader.readuntil(b"\r\n\r\n")

    run(main)
    assert "broken" in caplog.text


def test_a_head_request_gets_the_head_of_a_stream_alone() -> None:
    async def app(_scope: Any, _receive: Receive, send: Send) -> None:
        await send(HEAD)
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await send({"type": "http.response.body", "body": b"two"})

    async def main() -> None:
        async with served(app) as (reader, writer):
            writer.write(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
            assert (await reader.read()).endswith(b"\r\n\r\n")

    run(main)
