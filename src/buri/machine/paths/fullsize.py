"""Whether a path carries full-size packets: padded pings when it becomes the path, and whenever that is in doubt.

A WireGuard data message for the interface's MTU of 1280 bytes is 1312 bytes of UDP payload. Four padded pings 250 ms
apart (two round trips on a slow path) decide, so that a router which eats long packets without a word (no ICMP) is
found within a second or so:

- *Whole*: sent with DF, as data is. No answer, though a small ping sent after them was answered: go on with *cut*.
- *Cut*: the path has lost DF and GSO meanwhile. No answer again: the address is no path until a full-size ping returns.

Silence of the small ping as well proves nothing about size; the probe ends and starts again with the next pong. The
small ping goes a moment later than the last padded one: together they could travel as one train, and be eaten as one.

A path may grow narrow while it is used. So its heartbeats are padded once it is known to be whole; when only the small
repeat of one is answered, a shorter probe of two pings follows, the heartbeat being the first of three. A path that
cuts is tried whole again every minute.
"""

from __future__ import annotations

import enum

from buri.core.addresses import AddrPort
from buri.machine.paths.pings import Size
from buri.wire import disco

FULL_PAYLOAD_BYTES = 1280 + 32
PADDING_BYTES = FULL_PAYLOAD_BYTES - disco.PING_BYTES
TRIES = 4
TRIES_IN_DOUBT = 2
_SPACING_S = 0.25
_SPACING_ROUND_TRIPS = 2.0
_SMALL_AFTER_S = 0.05


class Step(enum.Enum):
    """What to do at a due time."""

    PING = "ping"
    SMALL_PING = "small ping"
    CONCLUDE = "conclude"


class FullSizeProbe:
    """The probe of one address at a time."""

    def __init__(self) -> None:
        self.address: AddrPort | None = None
        self.stage = Size.WHOLE
        self.small_sent_at = 0.0
        self._spacing_s = _SPACING_S
        self._steps: list[Step] = []
        self._next_at: float | None = None

    def start(self, address: AddrPort, stage: Size, latency_s: float, now: float, tries: int = TRIES) -> None:
        """Ping from now on; `stage` is WHOLE or CUT."""
        self.address = address
        self.stage = stage
        self._spacing_s = max(_SPACING_S, _SPACING_ROUND_TRIPS * latency_s)
        self._steps = [Step.PING] * tries + [Step.SMALL_PING, Step.CONCLUDE]
        self._next_at = now

    def stop(self) -> None:
        self.address = self._next_at = None

    def next_timeout(self) -> float | None:
        return self._next_at

    def step(self, now: float) -> Step | None:
        """The step that is due, None when none is."""
        if self._next_at is None or now < self._next_at:
            return None
        step = self._steps.pop(0)
        if step is Step.SMALL_PING:
            self.small_sent_at = now
        follows = self._steps[0] if self._steps else None
        self._next_at = now + (_SMALL_AFTER_S if follows is Step.SMALL_PING else self._spacing_s)
        return step
