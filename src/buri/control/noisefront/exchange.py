"""A request and its answer, whatever carried them: HTTP/1 outside, HTTP/2 inside a Noise session."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import parse_qs

import msgspec

JSON = "application/json"
HTML = "text/html; charset=utf-8"
TEXT = "text/plain; charset=utf-8"


class Request(msgspec.Struct, frozen=True):
    """`target` begins with a slash. `secure`: the client came by TLS. `peer`: its address, for logs. Header names are
    lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""
    secure: bool = False
    peer: str = ""

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def query(self, name: str) -> str:
        """The first value of a query parameter, "" when absent."""
        return parse_qs(self.target.partition("?")[2]).get(name, [""])[0]


class Response(msgspec.Struct, frozen=True):
    """`stream`: more of the body, each item sent when it comes; only the outer server sends it."""

    status: int = 200
    body: bytes = b""
    content_type: str = TEXT
    headers: tuple[tuple[str, str], ...] = ()
    stream: AsyncIterator[bytes] | None = None


Handler = Callable[[Request], Awaitable[Response]]


def sentence(status: int, text: str) -> Response:
    """An answer for a person who looks."""
    return Response(status, text.encode() + b"\n")
