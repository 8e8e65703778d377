"""The contract of every protocol machine: a pure object, fed and drained by a thin shell.

Life of a machine:

1. The shell feeds input: `handle_<something>(…, now)` for what came from outside, plain verbs for orders from above.
   Each takes `now` (seconds on the shell's monotonic clock) as its last argument. Wall-clock time, where a protocol
   needs it, is another explicit argument (`wall_s`).
2. It drains output: `poll_transmit()` until None (bytes or messages to send), then `poll_event()` until None (facts for
   the layer above).
3. It re-arms one timer at `next_timeout()` (None = no timer) and calls `handle_timeout(now)` when it fires.

A machine has no clock, no randomness and no socket: time, `random.Random`-like sources and keys are given to it.
It never raises on bad input from a peer other than `core.errors.PeerError`, and stays usable after it.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

TransmitT_co = TypeVar("TransmitT_co", covariant=True)
EventT_co = TypeVar("EventT_co", covariant=True)


class Machine(Protocol[TransmitT_co, EventT_co]):
    """What a shell may rely on."""

    def poll_transmit(self) -> TransmitT_co | None:
        """The next thing to send, or None when drained."""

    def poll_event(self) -> EventT_co | None:
        """The next fact for the layer above, or None when drained."""

    def next_timeout(self) -> float | None:
        """When `handle_timeout` wants to be called, on the clock of `now`; None for never."""

    def handle_timeout(self, now: float) -> None:
        """Do what is due at `now`; harmless when nothing is."""


class Randomness(Protocol):
    """Where a machine gets its dice from: `random.Random` fits, and so does `random.SystemRandom`."""

    def random(self) -> float:
        """A float in [0, 1)."""

    def uniform(self, a: float, b: float) -> float:
        """A float between a and b."""

    def randbytes(self, n: int) -> bytes:
        """n random bytes."""
