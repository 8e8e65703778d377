"""Whether a path carries full-size packets: padded pings at the moment it becomes the path.

A WireGuard data message for the interface's MTU of 1280 bytes is 1312 bytes of UDP payload. Three padded pings, 300 ms
apart or three round trips, decide; a silent router that eats long packets (no ICMP) is found within a second or two.
"""

from __future__ import annotations

from buri.core.addresses import AddrPort
from buri.wire import disco

FULL_PAYLOAD_BYTES = 1280 + 32
PADDING_BYTES = FULL_PAYLOAD_BYTES - disco.PING_BYTES
_TRIES = 4
_SPACING_S = 0.4


class FullSizeProbe:
    """The probe of one address at a time."""

    def __init__(self) -> None:
        self.address: AddrPort | None = None
        self._tries_left = 0
        self._next_at: float | None = None

    def start(self, address: AddrPort, now: float) -> None:
        self.address = address
        self._tries_left = _TRIES
        self._next_at = now

    def stop(self) -> None:
        self.address = self._next_at = None

    def is_due(self, now: float) -> bool:
        return self._next_at is not None and now >= self._next_at

    def next_timeout(self) -> float | None:
        return self._next_at

    def next_padding(self, now: float) -> int | None:
        """The padding of the ping to send now, None when the tries are over."""
        if self._tries_left == 0:
            return None
        self._tries_left -= 1
        self._next_at = now + _SPACING_S
        return PADDING_BYTES

    def result(self, address: AddrPort, *, passed: bool) -> bool:
        """An answer came: the probe of that address is over."""
        if address == self.address:
            self.stop()
        return passed
