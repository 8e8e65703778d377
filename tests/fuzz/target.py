"""What a fuzz target is: a parser of bytes that a stranger, a peer, a server, a file or a person may give.

`run` takes any bytes and lets nothing escape but what it must: an exception that is no `BuriError` where one was promised,
or a broken promise (AssertionError), is a finding. A target is called a million times: it opens no file or socket that it
does not close, and keeps nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple


class Target(NamedTuple):
    """A parser, where its promises are written, and inputs that reach its states."""

    name: str
    run: Callable[[bytes], None]
    seeds: Sequence[bytes]


class Input:
    """Choices read from a fuzzer's bytes; when they are used up, every number is 0."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, count: int) -> bytes:
        """The next bytes, or as many as there are."""
        taken = self._data[self._at : self._at + count]
        self._at += len(taken)
        return taken

    def rest(self) -> bytes:
        return self.take(len(self._data))

    def byte(self) -> int:
        return self.take(1)[0] if self else 0

    def word(self) -> int:
        return self.byte() << 8 | self.byte()

    def piece(self) -> bytes:
        """A piece whose length comes first."""
        return self.take(self.word())


def piece(data: bytes) -> bytes:
    """The other way round, for seeds."""
    return len(data).to_bytes(2, "big") + data
