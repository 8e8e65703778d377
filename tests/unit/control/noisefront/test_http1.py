"""The outer server over loopback: requests, refusals, and who may see what by which way."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import wraps
from pathlib import Path

import pytest

from buri.control.noisefront.exchange import Handler, Request, Response
from buri.control.noisefront.listener import NoiseFront
from buri.control.noisefront.pages import Pages
from buri.control.noisefront.tunnel import Reply
from buri.core.addresses import AddrPort
from buri.core.errors import InUseError, SystemFault
from buri.core.keys import MachinePrivate, MachinePublic
from buri.wire.proxyprotocol import ProxyHeader, build_proxy_header

KEY = MachinePrivate.from_entropy(b"k" * 32)
URL = "http://10.77.0.1:8080"
HERE = AddrPort.parse("127.0.0.1:0")
CLIENT = AddrPort.parse("203.0.113.9:5000")


def in_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 20))

    return run


class Client:
    """A raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *lines: str, body: bytes = b"") -> None:
        self.writer.write("".join(f"{line}\r\n" for line in (*lines, "")).encode() + body)

    async def head(self) -> str:
        return (await self.reader.readuntil(b"\r\n\r\n")).decode()

    async def answer(self) -> tuple[str, bytes]:
        """Head and body of one answer."""
        head = await self.head()
        length = next(int(line[16:]) for line in head.splitlines() if line.lower().startswith("content-length: "))
        return head, await self.reader.readexactly(length)

    async def last(self) -> str:
        """Everything until the server closes."""
        return (await self.reader.read()).decode()


async def nobody(_machine: MachinePublic, _request: Request, _reply: Reply) -> None:
    raise AssertionError("no session was opened")


@contextlib.asynccontextmanager
async def served(
    handler: Handler | None = None, *, unix: Path | None = None, tls: bool = False
) -> AsyncIterator[Client]:
    """A client connected to a front that serves `handler`, or the server's real pages."""
    pages = Pages(KEY.public(), URL, tls=tls)
    front = NoiseFront(KEY, handler or pages.handle, nobody)
    if unix is None:
        bound = await front.listen_tcp(HERE)
        reader, writer = await asyncio.open_connection("127.0.0.1", bound.port)
    else:
        await front.listen_unix(unix)
        reader, writer = await asyncio.open_unix_connection(str(unix))
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        await front.close()


async def echo(request: Request) -> Response:
    text = f"{request.method} {request.target} {request.path} q={request.query('q')} secure={request.secure}"
    return Response(body=text.encode() + b" " + request.body[:20] + b" %d" % len(request.body))


@in_loop
async def test_a_connection_serves_one_request_after_another() -> None:
    async with served() as client:
        for _ in range(3):
            client.send("GET /key?v=130 HTTP/1.1", "Host: x")
            head, body = await client.answer()
            assert head.startswith("HTTP/1.1 200 OK\r\n")
            assert str(KEY.public()).encode() in body
            assert "connection: close" not in head.lower()


@in_loop
async def test_requests_sent_at_once_are_answered_in_turn() -> None:
    async with served(echo) as client:
        client.send("GET /1 HTTP/1.1", "Host: x")
        client.send("POST /2?q=a%20b HTTP/1.1", "Host: x", "Content-Length: 4", body=b"body")
        client.send("GET http://10.0.0.1:80/3 HTTP/1.1", "Host: x")
        bodies = [(await client.answer())[1] for _ in range(3)]
        assert bodies == [
            b"GET /1 /1 q= secure=False  0",
            b"POST /2?q=a%20b /2 q=a b secure=False body 4",
            b"GET /3 /3 q= secure=False  0",
        ]


@in_loop
async def test_a_head_request_gets_the_head_alone() -> None:
    async with served() as client:
        client.send("HEAD /key HTTP/1.1", "Host: x")
        assert "content-length: " in (await client.head()).lower()
        client.send("GET /health HTTP/1.1", "Host: x")
        assert (await client.answer())[1] == b'{"status":"ok"}'


@pytest.mark.parametrize("target", ["/derp", "/ts2021", "/nothing"])
@in_loop
async def test_a_head_request_that_is_refused_gets_the_head_alone(target: str) -> None:
    async with served() as client:
        client.send(f"HEAD {target} HTTP/1.1", "Host: x")
        said = await client.last()
        assert said.startswith("HTTP/1.1 4")
        assert said.endswith("\r\n\r\n")


@in_loop
async def test_a_client_that_asks_before_it_sends_is_told_to_go_on() -> None:
    async with served(echo) as client:
        client.send("POST /x HTTP/1.1", "Host: x", "Content-Length: 3", "Expect: 100-continue")
        assert (await client.head()).startswith("HTTP/1.1 100 Continue")
        client.writer.write(b"yes")
        assert (await client.answer())[1].endswith(b"yes 3")


@in_loop
async def test_a_client_that_stopped_sending_still_gets_its_answer() -> None:
    async with served(echo) as client:
        client.send("GET /x HTTP/1.1", "Host: x")
        client.writer.write_eof()
        assert "GET /x" in await client.last()


@in_loop
async def test_a_body_of_a_mebibyte_is_taken_and_a_longer_one_refused() -> None:
    async with served(echo) as client:
        client.send("POST /x HTTP/1.1", "Host: x", f"Content-Length: {1 << 20}", body=bytes(1 << 20))
        assert (await client.answer())[1].endswith(b" 1048576")
        client.send(
            "POST /x HTTP/1.1", "Host: x", "Transfer-Encoding: chunked", body=b"100001\r\n" + bytes((1 << 20) + 1)
        )
        said = await client.last()
        assert said.startswith("HTTP/1.1 413 ")
        assert "The request's body is over 1 MiB." in said


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),  # a TLS client on the plain port
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * (65 << 10), 431),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n", 400),
    ],
)  # fmt: skip
@in_loop
async def test_a_head_that_is_none_is_refused_with_the_reason(sent: bytes, status: int) -> None:
    async with served() as client:
        client.writer.write(sent)
        said = await client.last()
        assert said.startswith(f"HTTP/1.1 {status} ")
        assert "That is not a request I understand: " in said


@pytest.mark.parametrize("target", ["//[", "/%ff?%ff=%", "*", "http://[", "http://x"])
@in_loop
async def test_an_odd_target_is_answered_and_nothing_breaks(target: str) -> None:
    async with served() as client:
        client.send(f"GET {target} HTTP/1.1", "Host: x")
        head, _ = await client.answer()
        assert head.startswith(("HTTP/1.1 200", "HTTP/1.1 404"))


@in_loop
async def test_a_relay_client_on_a_pooled_connection_is_told_to_dial_again() -> None:
    async with served() as client:
        client.send("GET /derp HTTP/1.1", "Host: x", "Upgrade: DERP", "Connection: Upgrade")
        said = await client.last()
        assert said.startswith("HTTP/1.1 421 ")
        assert "dial again" in said


@pytest.mark.parametrize(
    ("lines", "word"),
    [
        (["GET /ts2021 HTTP/1.1"], "wants a POST that upgrades"),
        (["POST /ts2021 HTTP/1.1", "Content-Length: 0"], "strips the Upgrade header is the usual cause"),
        (["POST /ts2021 HTTP/1.1", "Upgrade: websocket"], "wants a POST that upgrades"),
        (["POST /ts2021 HTTP/1.1", "Upgrade: tailscale-control-protocol"], "The Noise handshake was refused"),
        (["POST /ts2021 HTTP/1.1", "Upgrade: tailscale-control-protocol", "X-Tailscale-Handshake: ???"], "refused"),
        (["POST /ts2021 HTTP/1.1", "Upgrade: tailscale-control-protocol", "X-Tailscale-Handshake: AAAA"], "refused"),
    ],
)  # fmt: skip
@in_loop
async def test_a_session_is_refused_with_its_likely_cause(lines: list[str], word: str) -> None:
    async with served() as client:
        client.send(*lines, "Host: x")
        said = await client.last()
        assert said.startswith("HTTP/1.1 400 ")
        assert word in said


@in_loop
async def test_a_handshake_that_is_no_ascii_is_refused_like_any_other() -> None:
    async with served() as client:
        upgrade = b"Upgrade: tailscale-control-protocol\r\nX-Tailscale-Handshake: \xe9"
        client.writer.write(b"POST /ts2021 HTTP/1.1\r\nHost: x\r\n" + upgrade + b"\r\n\r\n")
        said = await client.last()
        assert said.startswith("HTTP/1.1 400 ")
        assert "The Noise handshake was refused" in said


@in_loop
async def test_a_handler_that_fails_costs_one_answer_and_no_detail(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(_request: Request) -> Response:
        raise RuntimeError("secret detail")

    async with served(fails) as client:
        client.send("GET / HTTP/1.1", "Host: x")
        said = await client.last()
    assert said.startswith("HTTP/1.1 500 ")
    assert "secret" not in said
    assert "secret detail" in caplog.text


@in_loop
async def test_a_client_that_leaves_cancels_what_it_asked_for() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def waits(_request: Request) -> Response:
        begun.set()
        try:
            await asyncio.get_running_loop().create_future()
            raise AssertionError
        finally:
            ended.set()

    front = NoiseFront(KEY, waits, nobody)
    bound = await front.listen_tcp(HERE)
    _, writer = await asyncio.open_connection("127.0.0.1", bound.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await begun.wait()
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing resets
    writer.close()
    await ended.wait()
    await front.close()


@in_loop
async def test_requests_sent_ahead_without_end_wait_outside_and_are_all_answered() -> None:
    go_on = asyncio.Event()

    async def slow(request: Request) -> Response:
        await go_on.wait()
        return await echo(request)

    async with served(slow) as client:
        requests = 4000
        for number in range(requests):
            client.send(f"GET /{number} HTTP/1.1", "Host: x", f"Padding: {'x' * 50}")
        await asyncio.sleep(0)
        go_on.set()
        for number in range(requests):
            assert f" /{number} ".encode() in (await client.answer())[1]


# ---- behind the front door ------------------------------------------------------------------------------------------


def handed_over(*, tls: bool) -> bytes:
    return build_proxy_header(ProxyHeader(CLIENT, AddrPort.parse("10.77.0.1:8080"), tls))


@in_loop
async def test_what_does_not_come_from_the_front_door_is_cut_off_without_an_answer(tmp_path: Path) -> None:
    async with served(unix=tmp_path / "front.sock") as client:
        client.send("GET /key HTTP/1.1", "Host: x")
        assert await client.last() == ""


@in_loop
async def test_behind_the_front_door_every_answer_ends_its_connection(tmp_path: Path) -> None:
    async with served(unix=tmp_path / "front.sock") as client:
        header = handed_over(tls=False)
        client.writer.write(header[:20])
        client.writer.write(header[20:] + b"GET /key HT")
        client.writer.write(b"TP/1.1\r\nHost: x\r\n\r\n")
        said = await client.last()
        assert said.startswith("HTTP/1.1 200 OK")
        assert "connection: close" in said.lower()
    assert not (tmp_path / "front.sock").exists()


@in_loop
async def test_a_server_with_tls_tells_plain_callers_its_key_and_where_to_go(tmp_path: Path) -> None:
    for path, tls, status in (("/key", False, 200), ("/health", True, 200), ("/", True, 200)):
        async with served(unix=tmp_path / "front.sock", tls=True) as client:
            client.writer.write(handed_over(tls=tls))
            client.send(f"GET {path} HTTP/1.1", "Host: x")
            assert (await client.last()).startswith(f"HTTP/1.1 {status} ")
    async with served(unix=tmp_path / "front.sock", tls=True) as client:
        client.writer.write(handed_over(tls=False))
        client.send("GET http://elsewhere/register/abc?q=1 HTTP/1.1", "Host: x")
        said = await client.last()
        assert said.startswith("HTTP/1.1 301 ")
        assert f"Location: {URL}/register/abc?q=1\r\n" in said


# ---- pages and listeners --------------------------------------------------------------------------------------------


@in_loop
async def test_the_pages_say_how_to_join_and_refuse_the_rest() -> None:
    async with served() as client:
        client.send("GET / HTTP/1.1", "Host: x")
        assert f"buri up --login-server {URL}".encode() in (await client.answer())[1]
        client.send("GET /nowhere HTTP/1.1", "Host: x")
        assert (await client.last()).startswith("HTTP/1.1 404 ")
    async with served() as client:
        client.send("POST /key HTTP/1.1", "Host: x", "Content-Length: 0")
        assert (await client.last()).startswith("HTTP/1.1 405 ")


@in_loop
async def test_a_port_that_is_taken_says_so() -> None:
    first, second = NoiseFront(KEY, echo, nobody), NoiseFront(KEY, echo, nobody)
    bound = await first.listen_tcp(HERE)
    with pytest.raises(InUseError) as caught:
        await second.listen_tcp(bound)
    assert str(caught.value) == f"{bound} is taken by another program. Stop it, or give another --listen."
    with pytest.raises(SystemFault, match=r"203\.0\.113\.1:1 is not an address of this machine"):
        await second.listen_tcp(AddrPort.parse("203.0.113.1:1"))
    await first.close()


@in_loop
async def test_a_socket_that_cannot_be_made_says_where(tmp_path: Path) -> None:
    with pytest.raises(SystemFault, match="cannot be opened"):
        await NoiseFront(KEY, echo, nobody).listen_unix(tmp_path / "none" / "front.sock")
