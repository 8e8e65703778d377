"""HTTP/2 inside Noise over loopback, spoken to by the client machine that burid uses and a plain HTTP/2 client."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import wraps

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import pytest

from buri.control.noisefront.exchange import Request, Response, sentence
from buri.control.noisefront.listener import NoiseFront
from buri.control.noisefront.machineroutes import MachineRoutes
from buri.control.noisefront.tunnel import MAX_BODY_BYTES, MAX_STREAMS, MachineHandler, Reply
from buri.core.addresses import AddrPort
from buri.core.errors import SystemFault, WireError
from buri.core.keys import MachinePrivate, MachinePublic
from buri.machine.noiseclient import NoiseClient
from buri.testing.controlworld import World

KEY = MachinePrivate.from_entropy(b"k" * 32)
MACHINE = MachinePrivate.from_entropy(b"m" * 32)
TINY_WINDOW = 10


def in_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 20))

    return run


async def no_page(_request: Request) -> Response:
    return sentence(404, "no page")


class Client:
    """One session's client; every stream's answer is collected as it comes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.noise = NoiseClient(MACHINE, KEY.public(), 130, MachinePrivate.from_entropy(b"e" * 32))
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.status: dict[int, int] = {}
        self.bodies: dict[int, bytearray] = {}
        self.ended: set[int] = set()
        self.resets: dict[int, int] = {}
        self.pongs = 0
        self.acknowledges: Callable[[int], bool] = lambda _stream: True
        self.closed = False

    async def open(self, *, window: int | None = None) -> None:
        """Upgrade, shake hands, send the preface."""
        word = base64.b64encode(self.noise.initiation()).decode()
        self.writer.write(
            "POST /ts2021 HTTP/1.1\r\nHost: x\r\nUpgrade: tailscale-control-protocol\r\nConnection: upgrade\r\n"
            f"X-Tailscale-Handshake: {word}\r\nContent-Length: 0\r\n\r\n".encode()
        )
        assert (await self.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        if window is not None:
            code = h2.settings.SettingCodes.INITIAL_WINDOW_SIZE
            self.h2.local_settings = h2.settings.Settings(client=True, initial_values={code: window})
        self.h2.initiate_connection()
        while not self.noise.established:
            self._take(await self.reader.read(4096))

    def flush(self) -> None:
        if data := self.h2.data_to_send():
            self.writer.write(self.noise.seal(data))

    def ask(self, path: str, body: bytes = b"", method: str = "POST") -> int:
        """Send a request; returns its stream."""
        stream = self.h2.get_next_available_stream_id()
        headers = [(":method", method), (":scheme", "https"), (":authority", "x"), (":path", path)]
        self.h2.send_headers(stream, headers, end_stream=not body)
        if body:
            self.h2.send_data(stream, body, end_stream=True)
        self.flush()
        return stream

    async def until(self, check: Callable[[], bool]) -> None:
        """Read until something is so, or the server closed."""
        while not check() and not self.closed:
            data = await self.reader.read(1 << 16)
            if not data:
                self.closed = True
            self._take(data)
        assert check(), "the server closed the session before that"

    async def answer(self, stream: int) -> tuple[int, bytes]:
        await self.until(lambda: stream in self.ended)
        return self.status[stream], bytes(self.bodies[stream])

    def _take(self, data: bytes) -> None:
        plain = self.noise.receive(data)
        for event in self.h2.receive_data(plain) if plain else ():
            match event:
                case h2.events.ResponseReceived(stream_id=int(stream), headers=headers):
                    self.status[stream] = int(next(value for name, value in headers or () if str(name) == ":status"))
                    self.bodies[stream] = bytearray()
                case h2.events.DataReceived(stream_id=int(stream), data=bytes(part)):
                    self.bodies[stream] += part
                    if event.flow_controlled_length and self.acknowledges(stream):
                        self.h2.acknowledge_received_data(event.flow_controlled_length, stream)
                case h2.events.StreamEnded(stream_id=int(stream)):
                    self.ended.add(stream)
                case h2.events.StreamReset(stream_id=int(stream), error_code=code):
                    self.resets[stream] = int(code or 0)
                case h2.events.PingAckReceived():
                    self.pongs += 1
        if self.noise.established:
            self.flush()


@contextlib.asynccontextmanager
async def session(handler: MachineHandler, *, window: int | None = None) -> AsyncIterator[Client]:
    front = NoiseFront(KEY, no_page, handler)
    bound = await front.listen_tcp(AddrPort.parse("127.0.0.1:0"))
    client = Client(*await asyncio.open_connection("127.0.0.1", bound.port))
    try:
        await client.open(window=window)
        yield client
    finally:
        client.writer.close()
        with contextlib.suppress(ConnectionError):
            await client.writer.wait_closed()
        await front.close()


async def echo(machine: MachinePublic, request: Request, reply: Reply) -> None:
    await reply.send(
        Response(body=f"{machine == MACHINE.public()} {request.path} {len(request.body)} ".encode() + request.body)
    )


@in_loop
async def test_a_whole_answer_comes_to_the_machine_that_the_handshake_proved() -> None:
    async with session(echo) as client:
        assert await client.answer(client.ask("/a", b"body")) == (200, b"True /a 4 body")
        assert await client.answer(client.ask("/b", method="GET")) == (200, b"True /b 0 ")


@in_loop
async def test_chunks_arrive_one_by_one_while_the_stream_stays_open() -> None:
    more = asyncio.Event()

    async def chunks(_machine: MachinePublic, _request: Request, reply: Reply) -> None:
        reply.begin()
        await reply.write(b"first ")
        await more.wait()
        await reply.write(b"second")
        await reply.finish()

    async with session(chunks) as client:
        stream = client.ask("/stream")
        await client.until(lambda: client.bodies.get(stream, b"") == b"first ")
        assert stream not in client.ended
        more.set()
        assert await client.answer(stream) == (200, b"first second")


@in_loop
async def test_a_reader_that_takes_nothing_blocks_no_other_stream() -> None:
    async def long(_machine: MachinePublic, request: Request, reply: Reply) -> None:
        await reply.send(Response(body=request.path[-1:].encode() * 1000))

    async with session(long, window=TINY_WINDOW) as client:
        lazy = client.h2.get_next_available_stream_id()
        client.acknowledges = lambda stream: stream != lazy
        assert client.ask("/lazy/x") == lazy
        assert await client.answer(client.ask("/eager/y")) == (200, b"y" * 1000)
        await client.until(lambda: len(client.bodies.get(lazy, b"")) == TINY_WINDOW)
        assert lazy not in client.ended
        client.acknowledges = lambda _stream: True
        client.h2.increment_flow_control_window(1000, lazy)
        client.flush()
        assert await client.answer(lazy) == (200, b"x" * 1000)


@in_loop
async def test_a_stream_that_is_reset_or_whose_connection_is_lost_cancels_its_handler() -> None:
    begun, ended = asyncio.Semaphore(0), asyncio.Semaphore(0)

    async def waits(_machine: MachinePublic, _request: Request, reply: Reply) -> None:
        reply.begin()
        begun.release()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.release()

    async with session(waits) as client:
        first, _ = client.ask("/1"), client.ask("/2")
        for _ in range(2):
            await begun.acquire()
        client.h2.reset_stream(first)
        client.flush()
        await ended.acquire()
        assert ended.locked()
        client.writer.close()
        await ended.acquire()


@in_loop
async def test_a_handler_that_waits_for_a_slow_reader_ends_with_its_stream() -> None:
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def long(_machine: MachinePublic, _request: Request, reply: Reply) -> None:
        try:
            await reply.send(Response(body=bytes(1000)))
        except asyncio.CancelledError:
            ended.set_result("cancelled")
            raise

    async with session(long, window=TINY_WINDOW) as client:
        client.acknowledges = lambda _stream: False
        stream = client.ask("/")
        await client.until(lambda: len(client.bodies.get(stream, b"")) == TINY_WINDOW)
        client.h2.reset_stream(stream)
        client.flush()
        assert await ended == "cancelled"


@in_loop
async def test_a_body_over_a_mebibyte_ends_its_stream_and_no_other() -> None:
    async with session(echo) as client:
        stream = client.h2.get_next_available_stream_id()
        client.h2.send_headers(
            stream, [(":method", "POST"), (":scheme", "https"), (":authority", "x"), (":path", "/long")]
        )
        sent = 0
        while stream not in client.resets:
            room = min(client.h2.local_flow_control_window(stream), 16384)
            if room == 0:
                waiting_at = sent
                await client.until(lambda: stream in client.resets or client.h2.local_flow_control_window(stream) > 0)
                assert sent == waiting_at
                continue
            client.h2.send_data(stream, bytes(room))
            client.flush()
            sent += room
            await client.writer.drain()
            if sent > MAX_BODY_BYTES:
                await client.until(lambda: stream in client.resets)
        assert client.resets[stream] == h2.errors.ErrorCodes.ENHANCE_YOUR_CALM
        assert (await client.answer(client.ask("/b", b"x")))[0] == 200


@in_loop
async def test_errors_are_answered_by_their_kind(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(_machine: MachinePublic, request: Request, reply: Reply) -> None:
        if request.path == "/wire":
            raise WireError("It does not parse.")
        if request.path == "/disk":
            raise SystemFault("The database /srv/server.db could not be written: disk full.")
        if request.path == "/late":
            reply.begin()
            await reply.write(b"begun")
        raise RuntimeError("a secret detail")

    async with session(fails) as client:
        assert await client.answer(client.ask("/wire")) == (400, b"It does not parse.\n")
        status, body = await client.answer(client.ask("/disk"))
        assert (status, b"Nothing was changed" in body, b"/srv" in body) == (503, True, False)
        assert "disk full" in caplog.text
        assert "Traceback" not in caplog.text
        status, body = await client.answer(client.ask("/bug"))
        assert (status, b"secret" in body) == (500, False)
        late = client.ask("/late")
        await client.until(lambda: late in client.resets)
        assert client.resets[late] == h2.errors.ErrorCodes.INTERNAL_ERROR
    assert caplog.text.count("RuntimeError: a secret detail") == 2


@pytest.mark.parametrize(
    ("path", "body", "place"),
    [
        ("/machine/map", b"{", b"The MapRequest does not parse: Input data was truncated."),
        ("/machine/map", b'{"Version": "x"}', b"Expected `int`, got `str` - at `$.Version`"),
        ("/machine/register", b'{"Version": 130, "Auth": 3}', b"got `int` - at `$.Auth`"),
        ("/machine/register", b"\xff\xfe", b"The RegisterRequest does not parse"),
        ("/machine/register", b'{"Version": 30}', b"Update the client."),
        ("/machine/register", b'{"Version": 130, "NodeKey": "nodekey:zz"}', b""),
    ],
)
@in_loop
async def test_what_does_not_parse_is_answered_with_the_place(path: str, body: bytes, place: bytes) -> None:
    async with session(MachineRoutes(World().coordinator).handle) as client:
        status, said = await client.answer(client.ask(path, body))
        assert status == 400, said
        assert place in said


@in_loop
async def test_json_without_an_end_of_nesting_is_answered_like_any_other_nonsense(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with session(MachineRoutes(World().coordinator).handle) as client:
        for path in ("/machine/register", "/machine/map"):
            status, said = await client.answer(client.ask(path, b'{"Unknown":' + b"[" * 8_000))
            assert status == 400, said
            assert b"does not parse" in said
    assert "Traceback" not in caplog.text


@in_loop
async def test_calls_that_are_not_known_are_told_apart() -> None:
    async with session(MachineRoutes(World().coordinator).handle) as client:
        assert await client.answer(client.ask("/machine/whoami", method="GET")) == (
            200,
            f"{MACHINE.public()}\n".encode(),
        )
        assert (await client.answer(client.ask("/machine/tka/init")))[0] == 501
        assert (await client.answer(client.ask("/elsewhere")))[0] == 404
        assert await client.answer(client.ask("/machine/update-health", b"{}")) == (200, b"{}")


@pytest.mark.parametrize("nonsense", [b"\x04\x00\x05hello", b"GET / HTTP/1.1\r\n\r\n", b"\x09\x00\x00"])
@in_loop
async def test_nonsense_instead_of_a_record_ends_the_session(nonsense: bytes) -> None:
    async with session(echo) as client:
        client.writer.write(nonsense)
        client.writer.write(b"\xff" * 5000)
        with contextlib.suppress(ConnectionError):
            while await client.reader.read(4096):
                continue


@pytest.mark.parametrize("header", [b"\xff\xfe", b"a b"])
@in_loop
async def test_headers_that_are_no_text_end_the_session_quietly(
    header: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with session(echo) as client:
        client.h2.config.validate_outbound_headers = False
        stream = client.h2.get_next_available_stream_id()
        names = [
            (b":method", b"GET"),
            (b":scheme", b"https"),
            (b":authority", b"x"),
            (b":path", b"/"),
            (b"x-odd", header),
        ]
        client.h2.send_headers(stream, names, end_stream=True)
        client.flush()
        with contextlib.suppress(ConnectionError, AssertionError):
            await client.answer(stream)
    assert "Traceback" not in caplog.text


@in_loop
async def test_more_streams_than_are_allowed_end_the_session() -> None:
    async def waits(_machine: MachinePublic, _request: Request, _reply: Reply) -> None:
        await asyncio.get_running_loop().create_future()

    async with session(waits) as client:
        client.h2.remote_settings = h2.settings.Settings(
            client=False, initial_values={h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 1000}
        )
        for number in range(MAX_STREAMS + 1):
            client.ask(f"/{number}")
        with contextlib.suppress(ConnectionError):
            while await client.reader.read(4096):
                continue
        assert not client.status


@in_loop
async def test_pings_and_new_settings_are_taken_between_requests() -> None:
    async with session(echo) as client:
        client.h2.ping(b"12345678")
        client.flush()
        await client.until(lambda: client.pongs == 1)
        client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1000})
        client.flush()
        assert await client.answer(client.ask("/a", b"x")) == (200, b"True /a 1 x")


@in_loop
async def test_closing_the_front_says_goodbye_to_every_session() -> None:
    front = NoiseFront(KEY, no_page, echo)
    bound = await front.listen_tcp(AddrPort.parse("127.0.0.1:0"))
    client = Client(*await asyncio.open_connection("127.0.0.1", bound.port))
    await client.open()
    await client.answer(client.ask("/a"))
    await front.close()
    with contextlib.suppress(AssertionError):
        await client.until(lambda: False)
    assert client.closed
    client.writer.close()
