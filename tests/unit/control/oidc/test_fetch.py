"""Asking over HTTP: what answers badly, slowly or endlessly is told in a few words."""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import Awaitable, Callable

import pytest

from buri.control.oidc.fetch import MAX_ANSWER_BYTES, HTTPFetcher
from buri.control.oidc.fetcher import Answer, SilentError
from buri.control.oidc.metadata import NonsenseError
from buri.testing.websites import in_loop

Ask = Callable[[HTTPFetcher, str], Awaitable[Answer]]


async def get(fetcher: HTTPFetcher, url: str) -> Answer:
    return await fetcher.get(url, "token")


async def answered(raw: bytes, ask: Ask = get) -> tuple[Answer, bytes]:
    """What the fetcher makes of bytes that a server answers, and what it asked."""
    asked = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.extend(await reader.readuntil(b"\r\n\r\n"))
        writer.write(raw)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    fetcher = HTTPFetcher()
    try:
        return await ask(fetcher, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x"), bytes(asked)
    finally:
        await fetcher.close()
        server.close()


def reply(body: bytes, status: str = "200 OK", more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


@in_loop
async def test_json_is_read_whatever_the_status_and_secrets_are_sent_as_they_should() -> None:
    answer, asked = await answered(reply(b'{"a":1}'))
    assert (answer.status, answer.body, b"Bearer token" in asked) == (200, {"a": 1}, True)

    async def post(fetcher: HTTPFetcher, url: str) -> Answer:
        return await fetcher.post(url, {"code": "c&d"}, ("buri", "s+e"))

    answer, asked = await answered(reply(b'{"error":"invalid_grant"}', "400 Bad Request"), post)
    assert (answer.status, answer.body) == (400, {"error": "invalid_grant"})
    assert base64.b64encode(b"buri:s+e") in asked


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (reply(b"<html>"), "no JSON object"),
        (reply(b"[1]"), "no JSON object"),
        (reply(b"[" * 100_000), "no JSON object"),
        (reply(b"\xff"), "no JSON object"),
        (reply(b"", "302 Found", "Location: http://127.0.0.1:1/\r\n"), "a redirect"),
        (reply(b" " * (MAX_ANSWER_BYTES + 1)), "over 1 MiB"),
    ],
)
def test_nonsense_is_told_apart(raw: bytes, words: str) -> None:
    @in_loop
    async def check() -> None:
        with pytest.raises(NonsenseError, match=words):
            await answered(raw)

    check()


@pytest.mark.parametrize(
    ("raw", "words"),
    [(reply(b"{}", "503 Busy"), "it answers 503"), (b"", "connection failed"), (b"SSH-2.0-x\r\n", "connection failed")],
)
def test_silence_is_told_apart(raw: bytes, words: str) -> None:
    @in_loop
    async def check() -> None:
        with pytest.raises(SilentError, match=words):
            await answered(raw)

    check()


@in_loop
async def test_nobody_there_is_silence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    fetcher = HTTPFetcher()
    with pytest.raises(SilentError, match="connection failed"):
        await fetcher.get(f"http://127.0.0.1:{port}/")
    await fetcher.close()
