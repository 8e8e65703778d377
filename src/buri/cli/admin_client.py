"""`buri admin`'s end of the admin socket."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from buri.core.errors import BuriError, NotPermittedError, UnreachableError, WireError
from buri.wire import adminapi
from buri.wire.badjson import BAD_JSON

T = TypeVar("T")
DEFAULT_STATE_DIR = "/var/lib/buri-server"
_MAX_SUN_PATH = 100


class Refused(BuriError):
    """The server's own error, with its exit code; `faults` are the places when it is about a text."""

    def __init__(self, failure: adminapi.Failure) -> None:
        super().__init__(failure.message, remedy=failure.remedy)
        self.exit_code = failure.exit_code
        self.faults = failure.faults


class Client:
    """Asks the server whose socket is at `path`; one connection for each question."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def ask(self, request: adminapi.Request, kind: type[T]) -> T:
        """Send a request and read its result as `kind`. Raises UnreachableError, NotPermittedError or Refused."""
        text = self._exchange(msgspec.json.encode(request) + b"\n")
        try:
            reply = adminapi.reply_decoder.decode(text)
            if reply.error is None:
                return msgspec.json.decode(reply.result, type=kind)
        except BAD_JSON as error:
            raise WireError(
                f"The server's answer is not understood: {error}.", remedy="Use the same version of buri on both ends."
            ) from error
        raise Refused(reply.error)

    def _exchange(self, line: bytes) -> bytes:
        directory = -1
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                name = str(self.path)
                if len(name) > _MAX_SUN_PATH:
                    directory = os.open(self.path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                    name = f"/proc/self/fd/{directory}/{self.path.name}"
                connection.connect(name)
                connection.sendall(line)
                with connection.makefile("rb") as answer:
                    text = answer.readline(adminapi.MAX_REPLY_BYTES)
        except PermissionError as error:
            raise NotPermittedError(
                f"No right to use the admin socket {self.path}.",
                remedy="Run as root or as the server's user: sudo buri admin …",
            ) from error
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
            raise UnreachableError(
                f"No buri server answers at {self.path}.",
                remedy="Is `buri server` running here, with this --state-dir?",
            ) from error
        except OSError as error:
            raise UnreachableError(f"The admin socket {self.path} failed: {error.strerror or error}.") from error
        finally:
            if directory >= 0:
                os.close(directory)
        if not text.endswith(b"\n"):
            raise UnreachableError("The server ended the connection before it answered.", remedy="See its log.")
        return text


def client(context: click.Context) -> Client:
    """The client that the group's options describe."""
    found = context.find_object(Client)
    if found is None:
        raise click.UsageError("buri admin's options are missing.")
    return found


def print_json(value: Any) -> None:
    """What --json prints: indented, keys in their order."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())
