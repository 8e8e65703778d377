"""One ts2021 connection to a control server, client side: HTTP upgrade, Noise, HTTP/2 inside. Bytes in, bytes out.

Wire reference 1a; upstream: tailscale `control/controlhttp`, `control/controlbase`, `control/ts2021`. The machine is
made for one TCP (or TLS) connection and dies with it. Order on the wire: `POST /ts2021` with the Noise initiation in a
header, `101`, the Noise response, an optional early payload, then HTTP/2 with prior knowledge.

Invariants: nothing is sent before the 101; after `Closed` every input is ignored and no stream is open.
"""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Callable
from typing import Protocol

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import msgspec

from buri.core.errors import PeerError, RefusedError, WireError
from buri.core.keys import ChallengePublic
from buri.wire.badjson import BAD_JSON
from buri.wire.tailcfg.register import EarlyNoise

UPGRADE_PROTOCOL = "tailscale-control-protocol"
HANDSHAKE_HEADER = "X-Tailscale-Handshake"
MAX_HEAD_BYTES = 16 << 10
MAX_EARLY_BYTES = 10 << 20
EARLY_MAGIC = b"\xff\xff\xffTS"
EARLY_HEAD_BYTES = 9
WINDOW_BYTES = 4 << 20  # a netmap of thousands of peers comes without a pause for window updates


class NoiseClient(Protocol):
    """The client's half of the Noise layer, from the first byte to the last."""

    def initiation(self) -> bytes:
        """The first message, once."""

    def receive(self, data: bytes) -> bytes:
        """Take bytes off the wire, return the plaintext they complete; raises PeerError."""

    def seal(self, data: bytes) -> bytes:
        """Records that carry `data`; StateError before the handshake is done."""

    @property
    def established(self) -> bool:
        """Whether the server's response was taken."""


class Ready(msgspec.Struct, frozen=True, tag=True):
    """Requests may be made; `challenge` is the early payload's, None when there was none."""

    challenge: ChallengePublic | None


class Head(msgspec.Struct, frozen=True, tag=True):
    """The status and headers (lower-case names) of the answer to request `stream`."""

    stream: int
    status: int
    headers: dict[str, str]


class Body(msgspec.Struct, frozen=True, tag=True):
    stream: int
    data: bytes


class End(msgspec.Struct, frozen=True, tag=True):
    """The answer is complete (`error` empty), or was cut short."""

    stream: int
    error: str = ""


class Closed(msgspec.Struct, frozen=True, tag=True):
    """The session is over; `error` says why, for a person."""

    error: PeerError


SessionEvent = Ready | Head | Body | End | Closed


class ControlSession:
    """See the module. `authority` is the control server's host[:port], as it goes into Host and :authority."""

    def __init__(self, noise: NoiseClient, authority: str) -> None:
        self._noise = noise
        self._authority = authority
        self._out: deque[bytes] = deque()
        self._events: deque[SessionEvent] = deque()
        self._head = bytearray()
        self._plain = bytearray()
        self._take: Callable[[bytes], None] = self._take_head
        self._open: set[int] = set()
        self._bodies: dict[int, bytes] = {}  # what flow control holds back
        self._closed = False
        self.ready = False
        self._h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, header_encoding="latin-1", validate_inbound_headers=True)
        )
        token = base64.b64encode(noise.initiation()).decode()
        self._out.append(
            (
                f"POST /ts2021 HTTP/1.1\r\nHost: {authority}\r\nUpgrade: {UPGRADE_PROTOCOL}\r\n"
                f"Connection: upgrade\r\n{HANDSHAKE_HEADER}: {token}\r\nContent-Length: 0\r\n\r\n"
            ).encode()
        )

    # ---- what the shell does ------------------------------------------------------------------------------------

    def poll_transmit(self) -> bytes | None:
        """The next bytes for the wire, None when drained."""
        return self._out.popleft() if self._out else None

    def poll_event(self) -> SessionEvent | None:
        """The next fact, None when drained."""
        return self._events.popleft() if self._events else None

    def handle_bytes(self, data: bytes) -> None:
        """Bytes came off the wire. A fault of the server's ends the session by a `Closed` event."""
        if self._closed:
            return
        try:
            self._take(data)
        except PeerError as error:
            self._close(error)
        except h2.exceptions.ProtocolError as error:
            self._close(WireError(f"The control server broke HTTP/2: {error}."))
        if not self._closed:
            self._flush()

    def handle_closed(self, reason: str = "The control server closed the connection.") -> None:
        """The connection ended."""
        if not self._closed:
            self._close(PeerError(reason))

    # ---- what the layer above asks ------------------------------------------------------------------------------

    def request(self, method: str, path: str, body: bytes, headers: tuple[tuple[str, str], ...] = ()) -> int:
        """Start a request, only after `Ready`; returns the stream's number."""
        stream = int(self._h2.get_next_available_stream_id())
        self._h2.send_headers(
            stream,
            [
                (":method", method),
                (":scheme", "https"),
                (":authority", self._authority),
                (":path", path),
                ("content-type", "application/json"),
                ("content-length", str(len(body))),
                *headers,
            ],
            end_stream=not body,
        )
        self._open.add(stream)
        if body:
            self._send_body(stream, body)
        self._flush()
        return stream

    def cancel(self, stream: int) -> None:
        """Give a request up; no more of it is heard."""
        if stream in self._open and not self._closed:
            self._open.discard(stream)
            self._h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
            self._flush()

    # ---- layers -------------------------------------------------------------------------------------------------

    def _take_head(self, data: bytes) -> None:
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            if len(self._head) > MAX_HEAD_BYTES:
                raise WireError("The control server's answer to the upgrade has no end.")
            return
        head, rest = bytes(self._head[:end]).decode("latin-1"), bytes(self._head[end + 4 :])
        self._head.clear()
        lines = head.split("\r\n")
        words = lines[0].split(" ", 2)
        if len(words) < 2 or not words[0].startswith("HTTP/1."):
            raise WireError("What answers there does not speak HTTP.", remedy="Check the control server's URL.")
        if words[1] != "101":
            text = rest.decode("utf-8", "replace").strip()[:200]
            raise RefusedError(
                f"The server refused the control protocol (HTTP {' '.join(words[1:])}{': ' + text if text else ''}).",
                remedy="Check the control server's URL.",
            )
        fields = (line.partition(":") for line in lines[1:])
        headers = {name.strip().lower(): value.strip() for name, _, value in fields}
        if headers.get("upgrade", "").lower() != UPGRADE_PROTOCOL:
            raise WireError("The server upgraded to another protocol.", remedy="Check the control server's URL.")
        self._take = self._take_noise
        if rest:
            self._take_noise(rest)

    def _take_noise(self, data: bytes) -> None:
        was = self._noise.established
        plain = self._noise.receive(data)
        if self._noise.established and not was:
            self._start_h2()
        if plain:
            self._take_plain(plain)

    def _start_h2(self) -> None:
        self._h2.initiate_connection()
        # Not by local_settings before: h2 would count on the new value without having told the server.
        self._h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: WINDOW_BYTES})
        self._h2.increment_flow_control_window(WINDOW_BYTES)
        self._flush()

    def _take_plain(self, data: bytes) -> None:
        if self.ready:
            self._take_h2(data)
            return
        self._plain += data
        if len(self._plain) < EARLY_HEAD_BYTES:
            return
        if not self._plain.startswith(EARLY_MAGIC):
            self._be_ready(None, bytes(self._plain))
            return
        length = int.from_bytes(self._plain[len(EARLY_MAGIC) : EARLY_HEAD_BYTES], "big")
        if length > MAX_EARLY_BYTES:
            raise WireError("The control server's early payload is too long.")
        end = EARLY_HEAD_BYTES + length
        if len(self._plain) < end:
            return
        try:
            early = msgspec.json.decode(bytes(self._plain[EARLY_HEAD_BYTES:end]), type=EarlyNoise)
        except BAD_JSON as error:
            raise WireError("The control server's early payload is not what it should be.") from error
        challenge = ChallengePublic.parse(early.node_key_challenge) if early.node_key_challenge else None
        self._be_ready(challenge, bytes(self._plain[end:]))

    def _be_ready(self, challenge: ChallengePublic | None, rest: bytes) -> None:
        self._plain.clear()
        self.ready = True
        self._events.append(Ready(challenge))
        if rest:
            self._take_h2(rest)

    def _take_h2(self, data: bytes) -> None:
        for event in self._h2.receive_data(data):
            match event:
                case h2.events.ResponseReceived(stream_id=stream, headers=headers) if stream in self._open:
                    fields = {str(name): str(value) for name, value in headers or ()}
                    status = fields.pop(":status", "")
                    if not (status.isascii() and status.isdigit() and len(status) == 3):
                        raise WireError(f"The control server answered with the status {status!r}.")
                    self._events.append(Head(stream or 0, int(status), fields))
                case h2.events.DataReceived(stream_id=stream):
                    self._h2.acknowledge_received_data(event.flow_controlled_length or 0, stream or 0)
                    if stream in self._open:
                        self._events.append(Body(stream or 0, bytes(event.data or b"")))
                case h2.events.StreamEnded(stream_id=stream) if stream in self._open:
                    self._open.discard(stream or 0)
                    self._events.append(End(stream or 0))
                case h2.events.StreamReset(stream_id=stream) if stream in self._open:
                    self._open.discard(stream or 0)
                    self._events.append(End(stream or 0, f"the server reset the stream (code {event.error_code})"))
                case h2.events.WindowUpdated():
                    self._send_waiting()
                case h2.events.ConnectionTerminated():
                    raise PeerError("The control server ended the session.")
                case _:
                    pass

    # ---- sending ------------------------------------------------------------------------------------------------

    def _send_body(self, stream: int, body: bytes) -> None:
        self._bodies[stream] = body
        self._send_waiting()

    def _send_waiting(self) -> None:
        for stream, body in list(self._bodies.items()):
            if stream not in self._open:
                del self._bodies[stream]
                continue
            room = min(self._h2.local_flow_control_window(stream), self._h2.max_outbound_frame_size)
            while body and room > 0:
                part, body = body[:room], body[room:]
                self._h2.send_data(stream, part, end_stream=not body)
                room = min(self._h2.local_flow_control_window(stream), self._h2.max_outbound_frame_size)
            if body:
                self._bodies[stream] = body
            else:
                del self._bodies[stream]

    def _flush(self) -> None:
        data = self._h2.data_to_send() if self._noise.established else b""
        if data:
            self._out.append(self._noise.seal(data))

    def _close(self, error: PeerError) -> None:
        self._closed = True
        self.ready = False
        self._open.clear()
        self._events.append(Closed(error))
