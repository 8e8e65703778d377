"""Waiting longer after each failure, with jitter, so that a crowd does not come back in step."""

from __future__ import annotations

from buri.machine.contract import Randomness


class Backoff:
    """`next_s()` after each failure, `reset()` after a success.

    The n-th wait is drawn between half and all of min(first_s × 2^(n-1), longest_s).
    """

    def __init__(self, rng: Randomness, *, first_s: float, longest_s: float) -> None:
        self._rng = rng
        self._first_s = first_s
        self._longest_s = longest_s
        self._failures = 0

    @property
    def failures(self) -> int:
        """How often in a row it failed."""
        return self._failures

    def next_s(self) -> float:
        """How long to wait now, in seconds; counts one failure."""
        ceiling_s = min(self._first_s * 2.0 ** min(self._failures, 32), self._longest_s)
        self._failures += 1
        return self._rng.uniform(ceiling_s / 2, ceiling_s)

    def reset(self) -> None:
        self._failures = 0
