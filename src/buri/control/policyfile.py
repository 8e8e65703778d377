"""The policy from a file: read at start and whenever it changes. A bad file leaves in force what is in force.

A change is noticed by the file's status (so replacing it by rename, as editors do, counts) and taken once the file has
rested for one look, so that nobody's half-written text is read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from buri.control.clock import Clock, Timer
from buri.control.policies import Policies
from buri.core.errors import BuriError, ConfigError, SyntaxPlaceError
from buri.policy.problems import PolicyError

LOOK_S = 0.4
_log = logging.getLogger("buri.server")
Status = tuple[int, int, int] | None


class PolicyFile:
    """Follows one file until `close`."""

    def __init__(self, path: Path, policies: Policies, clock: Clock, spawn: Callable[[], None]) -> None:
        """`spawn` shall run `read_again` soon: the file has changed."""
        self.path = path
        self._policies = policies
        self._clock = clock
        self._spawn = spawn
        self._taken: Status = None
        self._last: Status = None
        self._timer: Timer | None = None
        policies.file = path

    async def start(self) -> None:
        """Read it for the first time and begin to look. Raises ConfigError when it is bad and none was ever good."""
        self._taken = self._last = self._status()
        try:
            await self._take()
        except BuriError as error:
            if self._policies.current.id:
                _log.error("policy %d stays in force. %s", self._policies.current.id, self._told(error))
            else:
                await self._take_first(error)
        self._arm()

    async def _take_first(self, fault: BuriError) -> None:
        """With no other policy to keep: only its tests may fail, for the users they name may not be here yet."""
        try:
            await self._take(tests=False)
        except BuriError as error:
            raise ConfigError(f"The policy cannot be used.\n{self._told(error)}") from error
        _log.warning("policy %d is in force, though\n%s", self._policies.current.id, self._told(fault))

    async def read_again(self) -> None:
        """Take the file as it is now; what is wrong is logged."""
        try:
            await self._take()
        except BuriError as error:
            _log.error("the policy stays as it was. %s", self._told(error))
        else:
            _log.info("policy %d from %s is in force", self._policies.current.id, self.path)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        self._timer = self._clock.call_later(LOOK_S, self._look)

    def _look(self) -> None:
        status, before = self._status(), self._last
        self._last = status
        if status is not None and status == before and status != self._taken:
            self._taken = status
            self._spawn()
        self._arm()

    def _status(self) -> Status:
        try:
            found = self.path.stat()
        except OSError:
            return None  # gone for a moment, as when it is being replaced: the policy stays
        return found.st_mtime_ns, found.st_size, found.st_ino

    async def _take(self, *, tests: bool = True) -> None:
        try:
            text = self.path.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be read: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{self.path} is not UTF-8 text.") from error
        await self._policies.adopt_file(text, self.path, tests=tests)

    def _told(self, error: BuriError) -> str:
        """An error as FILE:LINE:COLUMN: MESSAGE, a line for each fault."""
        if isinstance(error, SyntaxPlaceError):
            return f"{self.path}:{error.line}:{error.column}: {error.reason}"
        if isinstance(error, PolicyError):
            return "\n".join(f"{self.path}:{p.line}:{p.column}: {p.message}" for p in error.problems)
        return str(error)
