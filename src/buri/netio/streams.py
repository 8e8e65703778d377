"""TCP and TLS streams, and one small HTTP request, for shells. Errors become core.errors with a phrase for a person."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import socket
import ssl
from urllib.parse import urlsplit

import h11

from buri.core.errors import ConfigError, PeerError, UnreachableError, WireError

CONNECT_TIMEOUT_S = 10.0
HTTP_TIMEOUT_S = 15.0
_READ_BYTES = 1 << 16
_SEGMENT_BYTES = 1220
_NOT_YET_VALID, _HAS_EXPIRED = 9, 10  # X509_V_ERR_… of OpenSSL


def tls_context(*, verify: bool = True) -> ssl.SSLContext:
    """The client's TLS: the system's roots (SSL_CERT_FILE is honoured), HTTP/1.1, TLS 1.2 or newer."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


async def connect(
    host: str,
    port: int,
    *,
    tls: bool,
    mark: int = 0,
    timeout_s: float = CONNECT_TIMEOUT_S,
    verify: bool = True,
    server_name: str = "",
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a stream, racing the host's addresses; `mark` is SO_MARK for it. Raises UnreachableError or PeerError."""
    loop = asyncio.get_running_loop()
    context = tls_context(verify=verify) if tls else None
    try:
        async with asyncio.timeout(timeout_s):
            try:
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except (socket.gaierror, UnicodeError) as error:  # UnicodeError: no name in any script
                raise UnreachableError(f"the name {host} has no address") from error
            problem: OSError | None = None
            for family, kind, protocol, _, address in found:
                sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
                try:
                    _mark(sock, mark)
                    _limit_segments(sock)
                    await loop.sock_connect(sock, address)
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    return await asyncio.open_connection(
                        sock=sock, ssl=context, server_hostname=(server_name or host) if context is not None else None
                    )
                except ssl.SSLCertVerificationError as error:
                    sock.close()
                    raise PeerError(f"its certificate is not trusted ({_why_not_trusted(error)})") from error
                except OSError as error:
                    sock.close()
                    problem = error
                except BaseException:
                    sock.close()
                    raise
            raise UnreachableError(describe(problem))
    except TimeoutError as error:
        raise UnreachableError("no answer in time") from error


def _why_not_trusted(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code not in (_NOT_YET_VALID, _HAS_EXPIRED):
        return error.verify_message
    today = datetime.datetime.now(datetime.UTC).date()
    return f"{error.verify_message}; this machine's clock says {today}"


def _mark(sock: socket.socket, mark: int) -> None:
    if mark and hasattr(socket, "SO_MARK"):
        with contextlib.suppress(PermissionError):  # without the right there is no TUN device to loop through either
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)


def _limit_segments(sock: socket.socket) -> None:
    """What IPv6's least MTU carries, both ways: a network that drops longer packets without a word stops nothing then."""
    if hasattr(socket, "TCP_MAXSEG"):
        with contextlib.suppress(OSError):  # an improvement, where the system offers it
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENT_BYTES)


def describe(error: OSError | None) -> str:
    """One phrase for a person."""
    if error is None:
        return "no address to try"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason or error})"
    if error.errno is not None:
        return os.strerror(error.errno).lower()
    return str(error).lower()


async def http(
    method: str,
    url: str,
    *,
    body: bytes = b"",
    limit_bytes: int = 1 << 16,
    mark: int = 0,
    timeout_s: float = HTTP_TIMEOUT_S,
) -> tuple[int, bytes]:
    """One HTTP/1.1 request on a connection of its own; returns status and body.

    Raises UnreachableError or PeerError; WireError when what answers is not HTTP or says more than `limit_bytes`.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{url!r} is not an HTTP URL.")
    tls = parts.scheme == "https"
    port = parts.port or (443 if tls else 80)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await connect(parts.hostname, port, tls=tls, mark=mark)
            try:
                return await _exchange(reader, writer, method, parts.netloc, target, body, limit_bytes)
            finally:
                writer.close()
    except TimeoutError as error:
        raise UnreachableError("no answer in time") from error
    except OSError as error:
        raise UnreachableError(describe(error)) from error
    except h11.ProtocolError as error:
        raise WireError("what answers there does not speak HTTP") from error


async def _exchange(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    method: str,
    authority: str,
    target: str,
    body: bytes,
    limit_bytes: int,
) -> tuple[int, bytes]:
    machine = h11.Connection(h11.CLIENT)
    headers = [("Host", authority), ("Connection", "close"), ("Content-Length", str(len(body)))]
    if body:
        headers.append(("Content-Type", "application/json"))
    for event in (h11.Request(method=method, target=target, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
        writer.write(machine.send(event) or b"")
    await writer.drain()
    status = 0
    answer = bytearray()
    while True:
        got = machine.next_event()
        if got is h11.NEED_DATA:
            machine.receive_data(await reader.read(_READ_BYTES))
        elif isinstance(got, h11.Response):
            status = got.status_code
        elif isinstance(got, h11.Data):
            answer += got.data
            if len(answer) > limit_bytes:
                raise WireError("what answers there says too much")
        elif isinstance(got, h11.EndOfMessage):
            return status, bytes(answer)
        elif isinstance(got, h11.ConnectionClosed):
            raise WireError("what answers there hung up")


async def request_latency_s(
    address: str, port: int, server_name: str, target: str, *, mark: int = 0, timeout_s: float = 3.0
) -> float | None:
    """How long one GET takes on an HTTPS connection that is open already, None when it fails.

    The certificate is not looked at: nothing is believed of the answer but its time.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await connect(
                address, port, tls=True, mark=mark, verify=False, server_name=server_name, timeout_s=timeout_s
            )
            try:
                started_at = loop.time()
                await _exchange(reader, writer, "GET", server_name, target, b"", 1 << 16)
                return loop.time() - started_at
            finally:
                writer.close()
    except (OSError, TimeoutError, PeerError, h11.ProtocolError):
        return None
