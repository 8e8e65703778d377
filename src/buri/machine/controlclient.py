"""The control client: how a node stands with its control server, from /key to the map stream. Pure.

Wire reference 1a (endpoints, map), 1b (registration flows); upstream: `control/controlclient/{auto,direct}.go`.

The client is told what is wanted (`connect`, `login`, `logout`, `set_report`) and works towards it by itself: it
fetches the server's key once, keeps one connection, registers, holds the map stream open, reports changes by lite
updates, and comes back after every failure with growing, jittered waits. Invariants:

- at most one register request, one lite update and one map stream are open, and a running stream goes on while a new
  login with another node key waits for a person (the key changes only when the server took it);
- a stream that is silent for 120 s is dropped with its connection;
- the netmap given out always belongs to one stream: the first message of a new one starts it afresh.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

import msgspec

from buri.core.errors import ConfigError, PeerError, RefusedError, WireError
from buri.core.keys import DiscoPublic, MachinePublic, NodePrivate, NodePublic
from buri.machine.backoff import Backoff
from buri.machine.contract import Randomness
from buri.machine.controlcalls import (
    CAPABILITY_VERSION,
    MAX_ANSWER_BYTES,
    Answer,
    Call,
    Login,
    Report,
    logout_request,
    map_request,
    register_request,
    retry_after_s,
)
from buri.machine.controlevents import (
    BrowserURL,
    ControlEvent,
    ControlState,
    ControlTransmit,
    Dial,
    FetchKey,
    HangUp,
    LoggedIn,
    LoggedOut,
    LoginFailed,
    LoginURL,
    NetmapChanged,
    NewKeyWanted,
    PingAsked,
    SendBytes,
    Trouble,
)
from buri.machine.controlsession import Body, Closed, ControlSession, End, Head, NoiseClient
from buri.machine.mapdelta import Netmap, apply, difference
from buri.machine.mapframes import MapFrameReader
from buri.wire.badjson import BAD_JSON
from buri.wire.tailcfg.base import parse_time
from buri.wire.tailcfg.mapping import MapResponse, PingRequest
from buri.wire.tailcfg.register import OverTLSPublicKeyResponse, RegisterResponse

STREAM_SILENCE_S = 120.0
CALL_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 15.0
LOGOUT_TIMEOUT_S = 10.0
REACH_S = 15.0  # a person's login ends when the server could not be reached for so long
REPORT_SPACING_S = 0.25  # between two lite updates, so that a burst of changes is told once


class Server(msgspec.Struct, frozen=True):
    """Where a control server is: `url` without a trailing slash, and what it means."""

    url: str
    host: str
    port: int
    tls: bool
    authority: str

    @classmethod
    def parse(cls, url: str) -> Server:
        """Raises ConfigError when the URL is not http(s)://HOST[:PORT]."""
        refusal = ConfigError(f"{url!r} is not a control server's URL.", remedy="Give http(s)://HOST[:PORT].")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise refusal from error
        extra = parts.path.strip("/") or parts.query or parts.fragment or parts.username is not None
        if parts.scheme not in ("http", "https") or not parts.hostname or extra or not parts.hostname.isprintable():
            raise refusal
        tls = parts.scheme == "https"
        clean = f"{parts.scheme}://{parts.netloc}"
        return cls(clean, parts.hostname, port or (443 if tls else 80), tls, parts.netloc.rpartition("@")[2])


class ControlClient:
    """See the module. `key` None: not logged in yet. Answers and timers all carry `now`."""

    def __init__(
        self,
        server: Server,
        noise: Callable[[MachinePublic, bytes], NoiseClient],
        disco: DiscoPublic,
        key: NodePrivate | None,
        rng: Randomness,
    ) -> None:
        """`noise` makes the Noise layer of one connection from the server's key and 32 random bytes."""
        self.server = server
        self.key = key
        self.state = ControlState.OFF
        self.netmap: Netmap | None = None
        self.clock_offset_s = 0.0  # the server's clock minus ours
        self._make_noise = noise
        self._disco = disco
        self._rng = rng
        self._server_key: MachinePublic | None = None
        self._wanted = False
        self._registered = False
        self._login: Login | None = None
        self._logout = False
        self._logout_by = 0.0
        self._report = Report()
        self._report_due = True
        self._report_at = 0.0
        self._session: ControlSession | None = None
        self._calls: dict[int, Call] = {}
        self._stream: int | None = None
        self._frames = MapFrameReader()
        self._fresh = True
        self._heard_at = 0.0
        self._deadline: float | None = None  # of connecting, or of waiting
        self._backoff = Backoff(rng, first_s=0.5, longest_s=30.0)
        self._hold_until = 0.0  # the server asked for patience
        self._last_ping_url = ""
        self._said_trouble = ""
        self._out: deque[ControlTransmit] = deque()
        self._events: deque[ControlEvent] = deque()

    # ---- what is wanted -----------------------------------------------------------------------------------------

    def connect(self, now: float) -> None:
        """Be connected from now on; a client that waits after a failure tries at once."""
        self._wanted = True
        if self.state in (ControlState.OFF, ControlState.WAITING) and now >= self._hold_until:
            self._dial(now)

    def reconnect(self, now: float) -> None:
        """The network is another: what is open now leads nowhere."""
        if self._wanted and now >= self._hold_until:
            self._report_due = True
            self._dial(now)

    def disconnect(self, now: float) -> None:
        """Be offline until `connect`."""
        self._wanted = False
        self._drop()
        self.state = ControlState.OFF
        self._deadline = None

    def login(
        self,
        key: NodePrivate,
        now: float,
        *,
        old: NodePublic | None = None,
        auth_key: str = "",
        ephemeral: bool = False,
    ) -> None:
        """Register with `key`, which the caller has already kept; `old` is the key it takes the place of."""
        self._login = Login(key, old, auth_key, ephemeral, now + REACH_S)
        for stream, call in list(self._calls.items()):
            if call.kind in ("register", "followup"):
                self._cancel(stream)
        self._hold_until = 0.0
        self.connect(now)
        self._work(now)

    def logout(self, now: float) -> None:
        """Have the server forget our node key; `LoggedOut` follows in at most 10 s, whatever the server says."""
        self._login = None
        if self.key is None:
            self._events.append(LoggedOut(""))
            return
        self._logout = True
        self.connect(now)
        self._logout_by = now + LOGOUT_TIMEOUT_S
        self._work(now)

    def set_report(self, report: Report, now: float) -> None:
        """What the server is to know of us; a change leaves by a lite update."""
        if report != self._report:
            self._report = report
            self._report_due = True
            self._work(now)

    def request_ping_answer(self, request: PingRequest, body: bytes, now: float) -> bool:
        """Answer a ping inside the session (HEAD without a body, else POST); False when there is no session.

        Raises WireError (or ValueError) when the URL of the request is none.
        """
        if self._session is None or not self._session.ready:
            return False
        parts = urlsplit(request.url)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        if not (path.startswith("/") and path.isascii() and path.isprintable() and " " not in path):
            raise WireError("The control server asked for an answer at a path that is none.")
        self._call("other", "POST" if body else "HEAD", path, body, now)
        self._flush()
        return True

    # ---- what the shell reports ---------------------------------------------------------------------------------

    def handle_key(self, status: int, body: bytes, now: float) -> None:
        """The answer of GET /key."""
        try:
            if status != 200:
                raise WireError(f"{self.server.url} answers /key with HTTP {status}.")
            text = msgspec.json.decode(body, type=OverTLSPublicKeyResponse).public_key
            key = MachinePublic.parse(text)
            if not key:
                raise WireError(f"{self.server.url} has no key to give.")
        except (*BAD_JSON, WireError) as error:
            reason = error.message if isinstance(error, WireError) else "what it gave as its key does not read."
            self._give_up_login(f"{self.server.url} is not a control server: {reason}", now)
            return
        self._server_key = key
        self._dial(now)

    def handle_stranger(self, reason: str, now: float) -> None:
        """What answers at the server's address cannot be a control server; `reason` is one phrase."""
        if self.state is ControlState.CONNECTING:
            self._give_up_login(f"{self.server.url} is not a control server we can use: {reason}.", now)

    def handle_failed(self, reason: str, now: float) -> None:
        """The shell could not fetch, dial, or keep the connection; `reason` is one phrase."""
        if self._session is not None:
            self._session.handle_closed(f"The connection to the control server was lost: {reason}.")
            self._drain_session(now, 0.0)
        elif self.state is ControlState.CONNECTING:
            self._unreachable(f"The control server {self.server.url} cannot be reached: {reason}.", now)

    def _unreachable(self, message: str, now: float) -> None:
        login = self._login
        if login is not None and login.give_up_at is not None and now >= login.give_up_at and not login.followup:
            self._give_up_login(message, now)
        else:
            self._fail(message, now)

    def handle_connected(self, now: float) -> None:
        """The connection that `Dial` asked for is open."""
        if self.state is not ControlState.CONNECTING or self._server_key is None:
            self._out.append(HangUp())
            return
        noise = self._make_noise(self._server_key, self._rng.randbytes(32))
        self._session = ControlSession(noise, self.server.authority)
        self._deadline = now + CONNECT_TIMEOUT_S
        self._drain_session(now, 0.0)

    def handle_bytes(self, data: bytes, now: float, wall_s: float) -> None:
        """Bytes of the connection; `wall_s` is the wall clock, for what the netmap says of times."""
        if self._session is not None:
            self._session.handle_bytes(data)
            self._drain_session(now, wall_s)

    def poll_transmit(self) -> ControlTransmit | None:
        """The next thing for the shell to do."""
        return self._out.popleft() if self._out else None

    def poll_event(self) -> ControlEvent | None:
        """The next fact for the layer above."""
        return self._events.popleft() if self._events else None

    def next_timeout(self) -> float | None:
        """When `handle_timeout` wants to be called."""
        times = [self._deadline] if self._deadline is not None else []
        if self._logout:
            times.append(self._logout_by)
        if self._stream is not None:
            times.append(self._heard_at + STREAM_SILENCE_S)
        times += [call.deadline for call in self._calls.values() if call.deadline is not None]
        if self._may_report():
            times.append(self._report_at)
        return min(times, default=None)

    def handle_timeout(self, now: float) -> None:
        """Do what is due."""
        if self._logout and now >= self._logout_by:
            self._end_logout("The control server did not answer in time.", now)
            return
        if self._deadline is not None and now >= self._deadline:
            self._deadline = None
            if self.state is ControlState.WAITING:
                self._dial(now)
            elif self.state is ControlState.CONNECTING:
                self._unreachable(f"The control server {self.server.url} does not answer.", now)
        elif self._stream is not None and now >= self._heard_at + STREAM_SILENCE_S:
            self._fail("The control server fell silent.", now)
        elif any(call.deadline is not None and now >= call.deadline for call in self._calls.values()):
            self._fail("The control server does not answer a request.", now)
        self._work(now)

    # ---- the connection -----------------------------------------------------------------------------------------

    def _dial(self, now: float) -> None:
        self._drop()
        self.state = ControlState.CONNECTING
        self._deadline = now + CONNECT_TIMEOUT_S
        if self._server_key is None:
            self._out.append(FetchKey(f"{self.server.url}/key?v={CAPABILITY_VERSION}"))
        else:
            self._out.append(Dial(self.server.host, self.server.port, self.server.tls))

    def _drop(self) -> None:
        if self.state is not ControlState.OFF and self.state is not ControlState.WAITING:
            self._out.append(HangUp())
        self._session = None
        self._calls.clear()
        self._stream = None

    def _fail(self, message: str, now: float, wait_s: float | None = None) -> None:
        self._drop()
        self.state = ControlState.WAITING
        self._deadline = now + (self._backoff.next_s() if wait_s is None else wait_s)
        if wait_s is not None:
            self._hold_until = self._deadline
        self._report_due = True
        self._trouble(message)

    def _trouble(self, message: str) -> None:
        if message != self._said_trouble:
            self._said_trouble = message
            self._events.append(Trouble(message))

    def _drain_session(self, now: float, wall_s: float) -> None:
        session = self._session
        while session is not None and session is self._session and (event := session.poll_event()) is not None:
            match event:
                case Head(stream, status, headers):
                    if (call := self._calls.get(stream)) is not None:
                        call.status, call.headers = status, headers
                        if call.kind == "map" and status == 200:
                            self._heard_at = now
                case Body(stream, data):
                    self._take_body(stream, data, now, wall_s)
                case End(stream, error):
                    self._take_end(stream, error, now)
                case Closed(error):
                    self._closed(error, now)
                case _:  # Ready
                    self.state = ControlState.CONNECTED
                    self._deadline = None
        self._work(now)

    def _closed(self, error: PeerError, now: float) -> None:
        never_opened = self.state is ControlState.CONNECTING
        if never_opened:
            self._server_key = None  # it may have been given another: ask again
            if isinstance(error, WireError | RefusedError):
                self._give_up_login(str(error), now)
                return
        self._fail(str(error), now)

    def _flush(self) -> None:
        if self._session is not None:
            while (data := self._session.poll_transmit()) is not None:
                self._out.append(SendBytes(data))

    # ---- requests -----------------------------------------------------------------------------------------------

    def _work(self, now: float) -> None:
        """Ask for whatever is wanted and not under way."""
        if self._session is not None and self._session.ready:
            kinds = {call.kind for call in self._calls.values()}
            if self._logout and self.key is not None:
                if "logout" not in kinds:
                    self._call("logout", "POST", "/machine/register", logout_request(self.key, self._report), now)
            elif self.key is not None and not self._registered and self._login is None:
                self._login = Login(self.key)
            if self._login is not None and not kinds & {"register", "followup"} and now >= self._hold_until:
                kind = "followup" if self._login.followup else "register"
                self._call(kind, "POST", "/machine/register", register_request(self._login, self._report), now)
            if self._registered and self.key is not None:
                if self._may_report() and now >= self._report_at:
                    self._report_due = False
                    self._report_at = now + REPORT_SPACING_S
                    self._call(
                        "report",
                        "POST",
                        "/machine/map",
                        map_request(self.key, self._disco, self._report, stream=False),
                        now,
                    )
                if self._stream is None:
                    self._frames = MapFrameReader()
                    self._fresh = True
                    self._heard_at = now
                    self._stream = self._call(
                        "map",
                        "POST",
                        "/machine/map",
                        map_request(self.key, self._disco, self._report, stream=True),
                        now,
                    )
        self._flush()

    def _may_report(self) -> bool:
        return (
            self._report_due
            and self._registered
            and self._session is not None
            and self._session.ready
            and not any(call.kind == "report" for call in self._calls.values())
        )

    def _call(self, kind: str, method: str, path: str, body: bytes, now: float) -> int:
        assert self._session is not None
        headers = () if self.key is None else (("ts-lb", str(self.key.public())),)
        stream = self._session.request(method, path, body, headers)
        deadline = None if kind in ("map", "followup") else now + CALL_TIMEOUT_S
        self._calls[stream] = Call(kind, deadline)
        return stream

    def _cancel(self, stream: int) -> None:
        self._calls.pop(stream, None)
        if self._session is not None:
            self._session.cancel(stream)
        if stream == self._stream:
            self._stream = None

    # ---- answers ------------------------------------------------------------------------------------------------

    def _take_body(self, stream: int, data: bytes, now: float, wall_s: float) -> None:
        call = self._calls.get(stream)
        if call is None:
            return
        if call.kind != "map" or call.status != 200:
            if len(call.body) + len(data) > MAX_ANSWER_BYTES:
                self._fail("The control server's answer is too long.", now)
                return
            call.body += data
            return
        try:
            for message in self._frames.feed(data):
                self._heard_at = now
                self._take_message(message, wall_s)
        except WireError as error:
            self._fail(str(error), now)

    def _take_message(self, message: MapResponse, wall_s: float) -> None:
        if isinstance(message.control_time, str):
            with suppress(ValueError):  # a clock that cannot be read is no reason to lose the netmap
                self.clock_offset_s = parse_time(message.control_time) - wall_s
        if isinstance(message.ping_request, PingRequest) and message.ping_request.url != self._last_ping_url:
            self._last_ping_url = message.ping_request.url
            self._events.append(PingAsked(message.ping_request))
        if message.pop_browser_url:
            self._events.append(BrowserURL(message.pop_browser_url))
        if message.keep_alive and self._fresh:
            return
        netmap, change = apply(None if self._fresh else self.netmap, message, wall_s)
        if self._fresh:
            change = difference(self.netmap, netmap)
            self._fresh = False
            self._backoff.reset()
            self._trouble("")
        self.netmap = netmap
        if change:
            self._events.append(NetmapChanged(netmap, change))

    def _take_end(self, stream: int, error: str, now: float) -> None:
        call = self._calls.pop(stream, None)
        if call is None:
            return
        if stream == self._stream:
            self._stream = None
        answer = Answer(call, error)
        match call.kind:
            case "register" | "followup":
                self._registered_answer(call, answer, now)
            case "logout":
                self._end_logout(answer.problem, now)
            case "map":
                if 400 <= call.status < 500 and call.status != 429:
                    self._registered = False  # it does not know us any more: register again
                self._fail(
                    f"The control server ended the map stream{answer.tail}.", now, retry_after_s(call, self._rng)
                )
            case "report" if answer.problem:
                self._report_due = True
                self._report_at = now + self._backoff.next_s()
            case _:
                pass

    def _registered_answer(self, call: Call, answer: Answer, now: float) -> None:
        login = self._login
        if login is None:
            return
        wait_s = retry_after_s(call, self._rng)
        if wait_s is not None or call.status >= 500 or (answer.problem and call.status == 0):
            self._fail(f"The control server cannot register us now{answer.tail}.", now, wait_s)
            return
        if answer.problem:
            self._give_up_login(f"The control server refused to register this node{answer.tail}.", now)
            return
        try:
            response = msgspec.json.decode(bytes(call.body), type=RegisterResponse)
        except BAD_JSON as error:
            self._give_up_login(f"The control server's answer to the registration does not read: {error}.", now)
            return
        if response.error:
            self._give_up_login(response.error, now)
        elif response.auth_url:
            if response.auth_url == login.followup:  # answered early: do not spin
                self._hold_until = self._deadline = now + self._backoff.next_s()
            else:
                login.followup = response.auth_url
                self._events.append(LoginURL(response.auth_url, lost=login.old is None and login.key == self.key))
        elif response.node_key_expired and login.old is not None:
            self._give_up_login("The control server holds this node's new key for expired as well.", now)
        elif response.node_key_expired:
            self._login = None
            self._registered = False
            self.key = None
            self._events.append(NewKeyWanted())
        else:
            self._login = None
            self._registered = True
            self._report_due = True
            if self.key is None or self.key.public() != login.key.public():
                self.key = login.key
                if self._stream is not None:
                    self._cancel(self._stream)
            self._events.append(LoggedIn(login.key, response.user, response.login, response.machine_authorized))

    def _give_up_login(self, message: str, now: float) -> None:
        """End a person's login with a word; what we do by ourselves is tried again, for it went well once."""
        login, self._login = self._login, None
        if login is None or login.give_up_at is None:
            self._fail(message, now)
            return
        self._events.append(LoginFailed(message))
        if not self._registered or self._session is None:
            self.disconnect(now)

    def _end_logout(self, error: str, now: float) -> None:
        self._logout = False
        self._registered = False
        self.key = None
        self.netmap = None
        self._events.append(LoggedOut(error))
        self.disconnect(now)
