"""The clock of the simulated internet: it jumps from one due thing to the next.

Things due at the same instant happen in the order they were asked for, so that a run depends on its seed alone.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable


class Timer:
    """A thing to come; `cancel` takes it back."""

    __slots__ = ("at", "call")

    def __init__(self, at: float, call: Callable[[], None]) -> None:
        self.at = at
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None


class Timeline:
    """Simulated seconds, and what happens when."""

    def __init__(self, start: float = 1000.0) -> None:
        self._now = start
        self._order = 0
        self._heap: list[tuple[float, int, Timer]] = []

    @property
    def now(self) -> float:
        return self._now

    def call_at(self, at: float, call: Callable[[], None]) -> Timer:
        """Call at that time, at once when it is past."""
        timer = Timer(max(at, self._now), call)
        self._order += 1
        heapq.heappush(self._heap, (timer.at, self._order, timer))
        return timer

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        return self.call_at(self._now + delay_s, call)

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        self._run_until(self._now + seconds, lambda: False)

    def run_until(self, condition: Callable[[], bool], within_s: float) -> bool:
        """Let time pass until the condition holds; False when it does not within that time."""
        return self._run_until(self._now + within_s, condition)

    def jump(self, seconds: float) -> None:
        """Time passes and nothing happens meanwhile, as when a machine sleeps; what was due comes late."""
        self._now += seconds

    def _run_until(self, end: float, condition: Callable[[], bool]) -> bool:
        if condition():
            return True
        while self._heap and self._heap[0][0] <= end:
            at, _, timer = heapq.heappop(self._heap)
            if timer.call is None:
                continue
            self._now = max(self._now, at)
            timer.call()
            if condition():
                return True
        self._now = max(self._now, end)
        return False
