"""Whether a path carries full-size packets: padded pings at the moment it becomes the path.

A WireGuard data message for the interface's MTU of 1280 bytes is 1312 bytes of UDP payload. Four padded pings 400 ms
apart decide, so that a router which eats long packets without a word (no ICMP) is found within two seconds:

    WHOLE        sent with DF, as data is; no answer, though a small ping sent with the last was answered -> CUT
    CUT          the path has lost DF and GSO meanwhile; no answer again -> the address is no path until a ping in
    WHOLE's way returns

Silence of the small ping as well proves nothing about size; the probe ends and starts again with the next pong.
"""

from __future__ import annotations

import enum

from buri.core.addresses import AddrPort
from buri.wire import disco

FULL_PAYLOAD_BYTES = 1280 + 32
PADDING_BYTES = FULL_PAYLOAD_BYTES - disco.PING_BYTES
_TRIES = 4
_SPACING_S = 0.4


class Stage(enum.Enum):
    """How the pings go out: with DF, or without (the engine's choice, by the path's `gso`)."""

    WHOLE = "whole"
    CUT = "cut"


class Step(enum.Enum):
    """What to do at a due time."""

    PING = "ping"
    LAST_PING = "last ping"  # and a small one beside it
    CONCLUDE = "conclude"


class FullSizeProbe:
    """The probe of one address at a time."""

    def __init__(self) -> None:
        self.address: AddrPort | None = None
        self.stage = Stage.WHOLE
        self.last_sent_at = 0.0
        self._tries_left = 0
        self._next_at: float | None = None

    def start(self, address: AddrPort, stage: Stage, now: float) -> None:
        self.address = address
        self.stage = stage
        self._tries_left = _TRIES
        self._next_at = now

    def stop(self) -> None:
        self.address = self._next_at = None

    def next_timeout(self) -> float | None:
        return self._next_at

    def step(self, now: float) -> Step | None:
        """The step that is due, None when none is."""
        if self._next_at is None or now < self._next_at:
            return None
        if self._tries_left == 0:
            return Step.CONCLUDE
        self._tries_left -= 1
        self.last_sent_at = now
        self._next_at = now + _SPACING_S
        return Step.PING if self._tries_left else Step.LAST_PING
