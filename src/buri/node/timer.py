"""One timer for one machine: re-armed after every input, it calls `handle_timeout` through the shell's pump."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class MachineTimer:
    """Calls `fire` at the time last given to `arm` (the loop's clock)."""

    def __init__(self, fire: Callable[[], None]) -> None:
        self._fire = fire
        self._handle: asyncio.TimerHandle | None = None

    def arm(self, at: float | None) -> None:
        """Fire at `at`, in place of any earlier wish; None: not at all."""
        if self._handle is not None:
            if at is not None and self._handle.when() == at and not self._handle.cancelled():
                return
            self._handle.cancel()
            self._handle = None
        if at is not None:
            self._handle = asyncio.get_running_loop().call_at(at, self._due)

    def _due(self) -> None:
        self._handle = None
        self._fire()
