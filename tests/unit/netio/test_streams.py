"""Streams and one HTTP request, against servers on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from buri.core.errors import ConfigError, PeerError, UnreachableError, WireError
from buri.netio.streams import connect, http, request_latency_s
from buri.relay.identity import make_self_signed

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def served(talk: Talk, client: Callable[[int], Awaitable[None]], **more: object) -> None:
    async def run() -> None:
        async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await talk(reader, writer)
            finally:
                writer.close()

        server = await asyncio.start_server(one, "127.0.0.1", 0, **more)  # type: ignore[arg-type]
        async with server:
            await client(server.sockets[0].getsockname()[1])

    asyncio.run(run())


def saying(answer: bytes, seen: list[bytes] | None = None) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if seen is not None:
            seen.append(head)
        writer.write(answer)
        await writer.drain()

    return talk


def test_a_get_returns_status_and_body() -> None:
    seen: list[bytes] = []

    async def client(port: int) -> None:
        url = f"http://127.0.0.1:{port}/key?v=130"
        assert await http("GET", url) == (404, b"gone")
        assert seen[0].startswith(b"GET /key?v=130 HTTP/1.1\r\n")
        assert f"host: 127.0.0.1:{port}\r\n".encode() in seen[0].lower()

    served(saying(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone", seen), client)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"SSH-2.0-x\r\n\r\n", "does not speak HTTP"),
        (b"", "does not speak HTTP|hung up"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "does not speak HTTP|hung up"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n" + b"x" * 99999, "says too much"),
    ],
)
def test_what_is_not_a_sound_answer_is_the_servers_fault(answer: bytes, words: str) -> None:
    async def client(port: int) -> None:
        with pytest.raises(WireError, match=words):
            await http("GET", f"http://127.0.0.1:{port}/")

    served(saying(answer), client)


def test_a_closed_port_is_unreachable_with_a_word() -> None:
    async def client(port: int) -> None:
        with pytest.raises(UnreachableError, match="connection refused"):
            await connect("127.0.0.1", 1, tls=False)

    served(saying(b""), client)


def test_a_silent_server_is_unreachable_in_time() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def client(port: int) -> None:
        with pytest.raises(UnreachableError, match="no answer in time"):
            await http("GET", f"http://127.0.0.1:{port}/", timeout_s=0.05)

    served(silent, client)


def test_a_name_without_an_address_says_so() -> None:
    async def run() -> None:
        with pytest.raises(UnreachableError, match=r"no-such-name\.invalid"):
            await connect("no-such-name.invalid", 80, tls=False)

    asyncio.run(run())


def test_a_url_that_is_none_is_the_callers_fault() -> None:
    with pytest.raises(ConfigError):
        asyncio.run(http("GET", "ftp://x/"))


def test_a_certificate_nobody_vouches_for_is_refused_but_can_be_timed(tmp_path: Path) -> None:
    import ssl

    chain, key = make_self_signed(["127.0.0.1"], authority=True)
    (tmp_path / "c").write_bytes(chain)
    (tmp_path / "k").write_bytes(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "c", tmp_path / "k")

    async def client(port: int) -> None:
        with pytest.raises(PeerError, match="certificate is not trusted"):
            await http("GET", f"https://127.0.0.1:{port}/")
        assert await request_latency_s("127.0.0.1", port, "127.0.0.1", "/derp/latency-check") is not None
        assert await request_latency_s("127.0.0.1", 1, "127.0.0.1", "/derp/latency-check") is None

    served(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), client, ssl=context)
