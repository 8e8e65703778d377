"""One request of LocalAPI and its answer, as values; what the rights of a caller are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager

import msgspec

from buri.core.errors import BuriError, ConfigError, StateError
from buri.wire.localapi import ErrorReply

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
EXIT_CODE_HEADER = "Buri-Exit-Code"  # ours: which exit code of core.errors the command line is to end with


class Rights(msgspec.Struct, frozen=True):
    """What a caller may do; everyone on this host may read."""

    write: bool
    who: str


class Request(msgspec.Struct, frozen=True):
    """A request whose head was found in order; `path` is what follows /localapi/v0/."""

    method: str
    path: str
    query: dict[str, str]
    body: bytes
    rights: Rights


class Response(msgspec.Struct, frozen=True):
    """A whole answer."""

    status: int = 200
    body: bytes = b""
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


class Stream(msgspec.Struct, frozen=True):
    """An endless answer: pieces of JSON, a line each, sent as they come while `source` is entered."""

    source: AbstractContextManager[AsyncIterator[bytes]]


class Refusal(Exception):
    """A request that is wrong in itself: an HTTP status and a line of text."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.response = Response(status, f"{message}\n".encode(), TEXT)


def answer(value: object) -> Response:
    """A JSON answer."""
    return Response(body=msgspec.json.encode(value) + b"\n")


def failure(error: BuriError) -> Response:
    """What the node could not do, in JSON, with the sentence for the user."""
    status = 400 if isinstance(error, ConfigError) else 409 if isinstance(error, StateError) else 500
    body = msgspec.json.encode(ErrorReply(error=str(error))) + b"\n"
    return Response(status, body, JSON, ((EXIT_CODE_HEADER, str(error.exit_code)),))


NO_CONTENT = Response(204)
