"""A control server made of the same machines turned round: HTTP/2 over a Noise layer that hides nothing."""

from __future__ import annotations

import random
from typing import Any

import h2.config
import h2.connection
import h2.events
import msgspec

from buri.core.errors import WireError
from buri.core.keys import DiscoPrivate, MachinePrivate, MachinePublic, NodePrivate
from buri.machine.controlclient import ControlClient, Server
from buri.machine.controlevents import ControlEvent, ControlTransmit, Dial, FetchKey, HangUp, SendBytes
from buri.machine.mapframes import zstd

HELLO, ANSWER = b"hello from the client", b"hello from the server"
SERVER_KEY = MachinePrivate.from_entropy(b"s" * 32).public()
KEY_JSON = msgspec.json.encode({"legacyPublicKey": "mkey:" + "00" * 32, "publicKey": str(SERVER_KEY)})
NODE = NodePrivate.from_entropy(b"n" * 32)
DISCO = DiscoPrivate.from_entropy(b"d" * 32).public()
WALL_S = 1_800_000_000.0
UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: tailscale-control-protocol\r\nConnection: upgrade\r\n\r\n"


class OpenNoise:
    """Noise without the noise: the handshake is two fixed words, records are the plaintext."""

    def __init__(self, server: MachinePublic, entropy: bytes) -> None:
        self.server = server
        self.established = False

    def initiation(self) -> bytes:
        return HELLO

    def receive(self, data: bytes) -> bytes:
        if not self.established:
            if not data.startswith(ANSWER):
                raise WireError("The server did not say its word.")
            self.established = True
            return data[len(ANSWER) :]
        return data

    def seal(self, data: bytes) -> bytes:
        assert self.established
        return data


class Request:
    """A request as the server saw it."""

    def __init__(self, stream: int, method: str, path: str, headers: dict[str, str]) -> None:
        self.stream = stream
        self.method = method
        self.path = path
        self.headers = headers
        self.body = b""

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Bench:
    """A client and the server it talks to, with a clock that only moves when told."""

    def __init__(self, *, key: NodePrivate | None = None, url: str = "http://control.test:8080") -> None:
        self.now = 1000.0
        self.client = ControlClient(Server.parse(url), OpenNoise, DISCO, key, random.Random(7))
        self.orders: list[ControlTransmit] = []
        self.events: list[ControlEvent] = []
        self.requests: list[Request] = []
        self.cancelled: list[int] = []
        self.h2: h2.connection.H2Connection | None = None
        self._head = b""
        self._key_wanted = False
        self._last_order: ControlTransmit | None = None
        self._open: dict[int, Request] = {}

    # ---- the shell ----

    def pump(self) -> None:
        while True:
            order = self.client.poll_transmit()
            if order is None:
                break
            if isinstance(order, SendBytes):
                self._serve(order.data)
            else:
                self.orders.append(order)
                self._last_order = order
                self._key_wanted = self._key_wanted or isinstance(order, FetchKey)
                if isinstance(order, HangUp):
                    self.h2, self._head = None, b""
        while (event := self.client.poll_event()) is not None:
            self.events.append(event)

    def take_orders(self) -> list[ControlTransmit]:
        self.pump()
        orders, self.orders = self.orders, []
        return orders

    def take(self, kind: type[Any]) -> Any:
        """The first event of a kind; everything before it is dropped."""
        self.pump()
        while self.events:
            event = self.events.pop(0)
            if isinstance(event, kind):
                return event
        raise AssertionError(f"no {kind.__name__} was said")

    def heard(self, kind: type[Any]) -> list[Any]:
        self.pump()
        return [event for event in self.events if isinstance(event, kind)]

    def later(self, seconds: float) -> None:
        self.now += seconds
        self.client.handle_timeout(self.now)
        self.pump()

    def until_timeout(self) -> float:
        """Move the clock to the client's next wish; returns how far that was."""
        at = self.client.next_timeout()
        assert at is not None
        waited_s = at - self.now
        self.later(max(0.0, waited_s))
        return waited_s

    def open(self) -> None:
        """Give the key, connect, and finish the handshake."""
        self.pump()
        if self._key_wanted:
            self._key_wanted = False
            self.client.handle_key(200, KEY_JSON, self.now)
            self.pump()
        assert isinstance(self._last_order, Dial)
        self.client.handle_connected(self.now)
        self.pump()

    # ---- the server ----

    def _serve(self, data: bytes) -> None:
        if self.h2 is None:
            self._head += data
            assert self._head.endswith(b"\r\n\r\n")
            assert b"POST /ts2021 HTTP/1.1" in self._head
            self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
            self.h2.initiate_connection()
            self.client.handle_bytes(UPGRADED + ANSWER + self.h2.data_to_send(), self.now, WALL_S)
            return
        for event in self.h2.receive_data(data):
            match event:
                case h2.events.RequestReceived(stream_id=stream, headers=headers):
                    fields = {str(name): str(value) for name, value in headers or ()}
                    assert stream is not None
                    self._open[stream] = Request(stream, fields[":method"], fields[":path"], fields)
                case h2.events.DataReceived(stream_id=stream):
                    assert stream is not None
                    self._open[stream].body += event.data or b""
                case h2.events.StreamEnded(stream_id=stream):
                    assert stream is not None
                    self.requests.append(self._open.pop(stream))
                case h2.events.StreamReset(stream_id=stream):
                    assert stream is not None
                    self.cancelled.append(stream)
                case _:
                    pass

    def request(self, path: str, **members: Any) -> Request:
        """The oldest request to `path` that holds these JSON members; it is taken off the list."""
        self.pump()
        for request in self.requests:
            if request.path == path and all(request.json.get(name) == value for name, value in members.items()):
                self.requests.remove(request)
                return request
        raise AssertionError(
            f"no request to {path} with {members}; there are {[(r.path, r.body) for r in self.requests]}"
        )

    def answer(self, request: Request, body: Any = None, *, status: int | str = 200, **headers: str) -> None:
        """Answer a request whole."""
        assert self.h2 is not None
        fields = [(":status", str(status)), *((name.replace("_", "-"), value) for name, value in headers.items())]
        self.h2.send_headers(request.stream, fields)
        data = body if isinstance(body, bytes) else msgspec.json.encode(body if body is not None else {})
        self.h2.send_data(request.stream, data, end_stream=True)
        self._flush()

    def begin_stream(self, request: Request) -> None:
        assert self.h2 is not None
        self.h2.send_headers(request.stream, [(":status", "200")])
        self._flush()

    def send_map(self, request: Request, message: Any) -> None:
        """One framed map message."""
        assert self.h2 is not None
        body = zstd.compress(msgspec.json.encode(message))
        data = len(body).to_bytes(4, "little") + body
        while data:
            room = min(self.h2.local_flow_control_window(request.stream), self.h2.max_outbound_frame_size)
            assert room > 0, "the client leaves no room to send"
            part, data = data[:room], data[room:]
            self.h2.send_data(request.stream, part)
            self._flush()

    def end_stream(self, request: Request) -> None:
        assert self.h2 is not None
        self.h2.end_stream(request.stream)
        self._flush()

    def _flush(self) -> None:
        assert self.h2 is not None
        self.client.handle_bytes(self.h2.data_to_send(), self.now, WALL_S)
        self.pump()

    # ---- whole ways ----

    def registered(self) -> Request:
        """Log in with an auth key and open the stream; returns the map stream's request."""
        self.client.login(NODE, self.now, auth_key="tskey-auth-x")
        self.open()
        self.answer(self.request("/machine/register"), {"MachineAuthorized": True, "User": {"ID": 5}})
        stream = self.request("/machine/map", Stream=True)
        self.begin_stream(stream)
        self.send_map(stream, {"Node": {"ID": 1, "Key": str(NODE.public())}})
        return stream
