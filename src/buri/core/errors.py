"""Every error Buri raises on purpose: one tree, sorted by who is at fault.

    BuriError                     exit code 1
      PeerError                   another node, relay or server spoke nonsense or refused us
        WireError                 bytes that do not parse (carries the offset)
        RefusedError              an understood refusal (wrong key, expired key, not authorized)
        UnreachableError          nobody answered
      ConfigError                 a file, flag or variable is wrong           exit code 2
        SyntaxPlaceError          … with line and column
      SystemFault                 the operating system said no                exit code 3
        NotPermittedError         … for want of rights                        exit code 4
        InUseError                … because a port, socket or lock is taken   exit code 5
      StateError                  the call does not fit the present state (not logged in, already running)
      InternalError               a promise of our own is broken: a bug       exit code 70

A message says what happened, who is at fault, and what to do next; `remedy` is that last part and may be empty.
"""

from __future__ import annotations


class BuriError(Exception):
    """Root of the tree. `str(error)` is one sentence for a person; `remedy` is what to type or change next."""

    exit_code = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


class PeerError(BuriError):
    """The other side is at fault."""


class WireError(PeerError):
    """Bytes or JSON from outside that do not parse; `offset` is where, -1 when unknown."""

    def __init__(self, message: str, *, offset: int = -1, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.offset = offset


class RefusedError(PeerError):
    """The other side understood us and said no."""


class UnreachableError(PeerError):
    """The other side did not answer."""


class ConfigError(BuriError):
    """A flag, variable or file of the user's is wrong."""

    exit_code = 2


class SyntaxPlaceError(ConfigError):
    """A file is wrong at a place: `line` and `column` count from 1; `reason` is the message without them."""

    def __init__(self, message: str, *, line: int, column: int, remedy: str = "") -> None:
        super().__init__(f"line {line}, column {column}: {message}", remedy=remedy)
        self.reason = message
        self.line = line
        self.column = column


class SystemFault(BuriError):
    """The operating system refused or lacks something."""

    exit_code = 3


class NotPermittedError(SystemFault):
    """The operating system refused for want of rights."""

    exit_code = 4


class InUseError(SystemFault):
    """A port, socket, interface or lock belongs to somebody else now."""

    exit_code = 5


class StateError(BuriError):
    """The request does not fit the present state."""


class InternalError(BuriError):
    """A bug of ours."""

    exit_code = 70
