"""A blocking LocalAPI client, small enough to start in no time (wire reference 1g).

One connection a request, `Connection: close`. It speaks to `burid` and, the protocol being Tailscale's, to `tailscaled`
too.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec

from buri.core.errors import BuriError, InternalError, NotPermittedError, SystemFault, UnreachableError, WireError
from buri.wire.badjson import BAD_JSON
from buri.wire.localapi import (
    BASE_PATH,
    CAPABILITY_VERSION,
    HOST,
    ErrorReply,
    LoginProfile,
    MaskedPrefs,
    NetcheckReport,
    Notify,
    NotifyMask,
    Options,
    PingResult,
    Prefs,
    Status,
    WhoIsResponse,
)
from buri.wire.tailcfg.derpmap import DERPMap

CONNECT_S = 5.0
ANSWER_S = 30.0
PING_GRACE_S = 0.5  # for the daemon's word that a ping was lost
LONG_ANSWER_S = 90.0  # what waits for the control server or the network
_LINE_LIMIT_BYTES = 1 << 16
_T = TypeVar("_T")


class DaemonError(BuriError):
    """The daemon could not do what was asked; it said why, and which exit code that is."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Reply(msgspec.Struct):
    """A reply's head, and the stream its body is on."""

    status: int
    headers: dict[str, str]
    stream: BinaryIO

    def body(self) -> bytes:
        """The whole body."""
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            return b"".join(self.chunks())
        length = self.headers.get("content-length")
        return self.stream.read(int(length)) if length is not None else self.stream.read()

    def chunks(self) -> Iterator[bytes]:
        """The body's chunks as they come; raises WireError for a broken one."""
        while True:
            size_text = _line(self.stream).partition(b";")[0]
            try:
                size = int(size_text, 16)
            except ValueError as error:
                raise WireError("The daemon ended in the middle of an answer.") from error
            data = self.stream.read(size + 2)
            if size == 0:
                return
            yield data[:size]

    def lines(self) -> Iterator[bytes]:
        """The body's lines as they come."""
        left = b""
        chunked = self.headers.get("transfer-encoding", "").lower() == "chunked"
        for chunk in self.chunks() if chunked else self.stream:
            *whole, left = (left + chunk).split(b"\n")
            yield from whole


class LocalClient:
    """What verbs ask of the daemon behind a socket; every method raises a BuriError with a sentence for the user."""

    def __init__(self, path: Path) -> None:
        self.path = path

    # ---- what there is ----------------------------------------------------------------------------------------------

    def status(self, *, peers: bool = True) -> Status:
        return self._get("status" if peers else "status?peers=false", Status)

    def prefs(self) -> Prefs:
        return self._get("prefs", Prefs)

    def whois(self, address: str, protocol: str = "") -> WhoIsResponse:
        from urllib.parse import quote

        query = f"whois?addr={quote(address, safe='')}" + (f"&proto={quote(protocol)}" if protocol else "")
        return self._get(query, WhoIsResponse)

    def derp_map(self) -> DERPMap | None:
        return msgspec.json.decode(self.call("GET", "derpmap"), type=DERPMap | None)

    def profile(self) -> LoginProfile:
        return self._get("profiles/current", LoginProfile)

    # ---- what changes something -------------------------------------------------------------------------------------

    def edit_prefs(self, edit: MaskedPrefs) -> Prefs:
        return _decode(self.call("PATCH", "prefs", msgspec.json.encode(edit)), Prefs)

    def check_prefs(self, prefs: Prefs) -> None:
        """Raises DaemonError when the daemon would not take these."""
        reply = _decode(self.call("POST", "check-prefs", msgspec.json.encode(prefs)), ErrorReply)
        if reply.error:
            raise DaemonError(reply.error, exit_code=2)

    def start(self, options: Options) -> None:
        self.call("POST", "start", msgspec.json.encode(options))

    def login_interactive(self) -> None:
        self.call("POST", "login-interactive")

    def logout(self) -> None:
        self.call("POST", "logout", timeout_s=LONG_ANSWER_S)

    # ---- what takes time --------------------------------------------------------------------------------------------

    def ping(self, address: str, *, kind: str = "disco", size_bytes: int = 0, timeout_s: float) -> PingResult:
        """One ping; without an answer in time the result is `lost`, or TimeoutError is raised (another's daemon)."""
        query = f"ping?ip={address.replace('%', '%25')}&type={kind}&buri-patience-ms={round(timeout_s * 1000)}"
        query += f"&size={size_bytes}" if size_bytes else ""
        return _decode(self._call("POST", query, b"", timeout_s + PING_GRACE_S), PingResult)

    def netcheck(self) -> NetcheckReport:
        return _decode(self.call("POST", "buri/netcheck", timeout_s=LONG_ANSWER_S), NetcheckReport)

    def watch(self, mask: NotifyMask = NotifyMask.NO_PRIVATE_KEYS) -> Watch:
        """Subscribe to the bus; what is said from now on is not lost."""
        return Watch(self, mask)

    # ---- the call itself --------------------------------------------------------------------------------------------

    def call(self, method: str, path: str, body: bytes = b"", *, timeout_s: float = ANSWER_S) -> bytes:
        """One request under /localapi/v0/, its body back; raises for every status but 2xx."""
        try:
            return self._call(method, path, body, timeout_s)
        except TimeoutError as error:
            raise UnreachableError(
                f"burid took the request {method} {path.partition('?')[0]} but does not answer.",
                remedy="Look at its log, or restart it.",
            ) from error

    def _call(self, method: str, path: str, body: bytes, timeout_s: float) -> bytes:
        with self.open(method, path, body, timeout_s=timeout_s) as connection:
            try:
                return self.reply(connection, method, path).body()
            except TimeoutError:
                raise
            except OSError as error:
                raise UnreachableError(
                    f"burid ended while it was answering ({error.strerror or error}).", remedy="Look at its log."
                ) from error

    def open(self, method: str, path: str, body: bytes = b"", *, timeout_s: float) -> socket.socket:
        """Connect and send a request."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        head = (
            f"{method} {BASE_PATH}{path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n"
            f"Tailscale-Cap: {CAPABILITY_VERSION}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        try:
            connection.settimeout(CONNECT_S)
            connection.connect(str(self.path))
            connection.sendall(head.encode() + body)
        except OSError as error:
            connection.close()
            raise self._unreachable(error) from error
        connection.settimeout(timeout_s)
        return connection

    def reply(self, connection: socket.socket, method: str, path: str) -> Reply:
        """Read a reply's head; raises for every status but 2xx. May raise OSError."""
        stream = connection.makefile("rb")
        words = _line(stream).split(b" ", 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
            raise UnreachableError(
                f"What listens on {self.path} is no burid, or it ended just now.", remedy="Look at its log."
            )
        headers = {}
        while line := _line(stream):
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        reply = Reply(int(words[1]), headers, stream)
        if reply.status // 100 != 2:
            raise _refused(reply, method, path)
        return reply

    def _get(self, path: str, shape: type[_T]) -> _T:
        return _decode(self.call("GET", path), shape)

    def _unreachable(self, error: OSError) -> BuriError:
        if isinstance(error, PermissionError):
            return NotPermittedError(f"You may not open {self.path}.", remedy="Use sudo.")
        if isinstance(error, FileNotFoundError | ConnectionRefusedError):
            start = "sudo systemctl start burid" if Path("/run/systemd/system").is_dir() else "sudo burid"
            return UnreachableError(
                f"burid is not running (nothing answers on {self.path}).",
                remedy=f"Start it with `{start}`, or give its --socket.",
            )
        if isinstance(error, TimeoutError):
            return UnreachableError(f"burid does not answer on {self.path}.", remedy="Restart it, and see its log.")
        return SystemFault(f"{self.path} cannot be used: {error.strerror or error}.")


class Watch:
    """A subscription to the notify bus; use as a context manager."""

    def __init__(self, client: LocalClient, mask: NotifyMask) -> None:
        path = f"watch-ipn-bus?mask={int(mask)}"
        self._connection = client.open("GET", path, timeout_s=CONNECT_S)
        try:
            self._lines = client.reply(self._connection, "GET", path).lines()
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def raw_lines(self) -> Iterator[bytes]:
        """Messages as JSON, without end."""
        self._connection.settimeout(None)
        return (line for line in self._lines if line)

    def next(self, deadline: float | None = None) -> Notify:
        """The next message; raises TimeoutError past `deadline` (monotonic), UnreachableError when the daemon ends."""
        while True:
            self._connection.settimeout(None if deadline is None else max(deadline - time.monotonic(), 0.001))
            line = next(self._lines, None)
            if line is None:
                raise UnreachableError("burid ended.", remedy="Look at its log.")
            if line:
                return _decode(line, Notify)


def _line(stream: BinaryIO) -> bytes:
    line = stream.readline(_LINE_LIMIT_BYTES)
    return line.rstrip(b"\r\n")


def _decode(body: bytes, shape: type[_T]) -> _T:
    try:
        return msgspec.json.decode(body, type=shape)
    except BAD_JSON as error:
        raise WireError(f"The daemon's answer is not understood: {error}.") from error


def _refused(reply: Reply, method: str, path: str) -> BuriError:
    text = reply.body().decode("utf-8", "replace").strip()
    if reply.headers.get("content-type", "").startswith("application/json"):
        with contextlib.suppress(*BAD_JSON):  # shown as it came
            said = msgspec.json.decode(text, type=dict[str, object])
            text = str(said.get("Error") or said.get("error") or text)
    if reply.status == 403:
        return NotPermittedError(
            f"Access denied: {text.removesuffix(' access denied') or 'this call'} is not for everyone.",
            remedy="Use sudo, or let this user do it from now on: `sudo buri set --operator=$USER`.",
        )
    if reply.status in (404, 405) and text.startswith(("404 page", "unsupported method")):
        return InternalError(f"The daemon does not know {method} {path.partition('?')[0]}; is it of another version?")
    code = reply.headers.get("buri-exit-code", "1")
    return DaemonError(text or f"The daemon answered {reply.status}.", int(code) if code.isdigit() else 1)
