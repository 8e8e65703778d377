"""The admin socket: a Unix socket in the state directory, for root and the server's own user only.

Mode 0600, and the kernel's word on who connects (SO_PEERCRED) besides: a directory made readable by mistake lets
nobody in. The language is wire.adminapi's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from pathlib import Path

import msgspec

from buri.control.api.verbs import Verbs
from buri.core.errors import BuriError, InternalError, NotPermittedError, SyntaxPlaceError, SystemFault
from buri.policy.problems import PolicyError
from buri.wire import adminapi
from buri.wire.badjson import BAD_JSON

MAX_SUN_PATH = 100
_CREDENTIALS = struct.Struct("3i")


class AdminSocket:
    """Listens until `close`. Hold the state directory's lock: then a socket file that is there is a dead server's."""

    def __init__(self, server: asyncio.Server, path: Path, connections: set[asyncio.Task[None]]) -> None:
        self._server = server
        self._connections = connections
        self.path = path

    @classmethod
    async def open(cls, state_dir: Path, verbs: Verbs) -> AdminSocket:
        """Bind `admin.sock`. Raises SystemFault."""
        path = state_dir / adminapi.SOCKET_NAME
        connections: set[asyncio.Task[None]] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            if task is not None:
                connections.add(task)
                task.add_done_callback(connections.discard)
            await _converse(reader, writer, verbs)

        try:
            listener = _bind(path)
            server = await asyncio.start_unix_server(connected, sock=listener, limit=adminapi.MAX_LINE_BYTES)
        except OSError as error:
            raise SystemFault(f"The admin socket {path} cannot be opened: {error.strerror or error}.") from error
        return cls(server, path, connections)

    async def close(self) -> None:
        """Stop listening, drop who is connected, remove the file."""
        self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        with contextlib.suppress(OSError):  # somebody removed the directory: nothing is left to tidy
            self.path.unlink()


def _bind(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    directory = -1
    old_mask = os.umask(0o177)
    try:
        name = str(path)
        if len(name) > MAX_SUN_PATH:  # sun_path is short: reach the directory through a descriptor
            directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            name = f"/proc/self/fd/{directory}/{path.name}"
        listener.bind(name)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(old_mask)
        if directory >= 0:
            os.close(directory)
    return listener


def _is_allowed(connection: socket.socket) -> bool:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _pid, user, _group = _CREDENTIALS.unpack(raw)
    return user in (0, os.geteuid())


def _stranger() -> NotPermittedError:
    return NotPermittedError(
        "Only root and the server's own user may administer this server.", remedy="Try again with sudo."
    )


async def _converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, verbs: Verbs) -> None:
    connection: socket.socket = writer.get_extra_info("socket")
    allowed = _is_allowed(connection)
    try:
        while line := await reader.readline():
            writer.write(_encoded(await _answer(line, verbs) if allowed else _failed(_stranger())))
            await writer.drain()
    except (OSError, ValueError):  # gone, or a line longer than any request: nothing to answer to
        return
    finally:
        writer.close()


async def _answer(line: bytes, verbs: Verbs) -> adminapi.Reply:
    try:
        request = adminapi.request_decoder.decode(line)
    except BAD_JSON as error:
        return adminapi.Reply(
            error=adminapi.Failure(
                f"The server does not understand this request: {error}.",
                "Use the same version of buri on both ends.",
                1,
            )
        )
    try:
        return adminapi.Reply(result=msgspec.Raw(msgspec.json.encode(await verbs.carry_out(request))))
    except BuriError as error:
        return _failed(error)
    except Exception as error:  # one request's bug must not end the server; its caller is told
        return _failed(InternalError(f"The server failed: {error!r}."))


def _failed(error: BuriError) -> adminapi.Reply:
    return adminapi.Reply(error=adminapi.Failure(error.message, error.remedy, error.exit_code, _faults(error)))


def _faults(error: BuriError) -> list[adminapi.Fault]:
    """The places of an error about a text."""
    if isinstance(error, SyntaxPlaceError):
        return [adminapi.Fault(line=error.line, column=error.column, message=error.reason)]
    if isinstance(error, PolicyError):
        return [adminapi.Fault(line=p.line, column=p.column, message=p.message) for p in error.problems]
    return []


def _encoded(reply: adminapi.Reply) -> bytes:
    return msgspec.json.encode(reply) + b"\n"
