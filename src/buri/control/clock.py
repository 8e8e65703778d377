"""Time as the control server's parts see it: injected, so that tests jump instead of waiting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """A call to come; `cancel()` may be repeated."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """Wall time for what is stored and shown, timers for what must happen later."""

    def wall_s(self) -> float:
        """Seconds since 1970."""

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        """Run `call` once in the event loop after a delay that wall-clock steps do not touch."""


class SystemClock:
    """The machine's clock and the running event loop's timers."""

    def wall_s(self) -> float:
        return time.time()

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        return asyncio.get_running_loop().call_later(delay_s, call)
