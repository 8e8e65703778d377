"""The control server's clock as a node knows it: what it told last, carried on by a clock that nobody sets.

Ends of keys are the server's word, so they are judged by its clock: a machine whose own clock is years off (a small board
without a battery, a wrong setting) stays in the tailnet, and its person is told.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from buri.wire.tailcfg.base import format_time

TOLERATED_S = 600.0


def _steady_s() -> float:
    """Counts sleep as well, where the system has such a clock."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class ServerClock:
    """`wall_s` is the machine's own clock until the server has told its time."""

    def __init__(self, own_s: Callable[[], float] = time.time, steady_s: Callable[[], float] = _steady_s) -> None:
        self._own_s = own_s
        self._steady_s = steady_s
        self._taken = 0.0
        self._base_s: float | None = None

    def take(self, offset_s: float) -> None:
        """The server's clock minus ours, as the control client measured it just now; the same word twice is no news."""
        if offset_s != self._taken:
            self._taken = offset_s
            self._base_s = self._own_s() + offset_s - self._steady_s()

    def wall_s(self) -> float:
        """Seconds since 1970 at the server."""
        return self._own_s() if self._base_s is None else self._base_s + self._steady_s()

    @property
    def warning(self) -> str:
        """One sentence when the machine's clock is far from the server's, else ""."""
        own_s, theirs_s = self._own_s(), self.wall_s()
        if abs(own_s - theirs_s) <= TOLERATED_S:
            return ""
        own, theirs = (format_time(float(int(moment))) for moment in (own_s, theirs_s))
        return f"This machine's clock says {own}, the control server's {theirs}: set it (timedatectl set-ntp true)."
