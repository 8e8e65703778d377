"""A person's pings to one peer: each stays open until it is answered or its time is over.

A ping is not lost because no way to the peer is known yet: it goes out by each way as soon as there is one (the relay
connected, its region learnt, an address learnt), once by each, and only its own end makes it lost.
"""

from __future__ import annotations

from buri.core.addresses import AddrPort

RELAY_AGAIN_S = 0.5

Way = AddrPort | int
"""An address, or a relay's region."""


class AskedPing:
    """One open ping; `tried` are the ways by which it went out."""

    __slots__ = ("padding_bytes", "patience_s", "request", "tried", "until")

    def __init__(self, request: int, padding_bytes: int, patience_s: float, now: float) -> None:
        self.request = request
        self.padding_bytes = padding_bytes
        self.patience_s = patience_s
        self.until = now + patience_s
        self.tried: set[Way] = set()


class AskedPings:
    """Those open, by request."""

    def __init__(self) -> None:
        self._open: dict[int, AskedPing] = {}
        self._gone: dict[int, float] = {}  # relays that said the peer is not there: when each is asked again

    def __len__(self) -> int:
        return len(self._open)

    def add(self, asked: AskedPing) -> None:
        self._open[asked.request] = asked

    def answered(self, request: int) -> None:
        self._open.pop(request, None)
        if not self._open:
            self._gone.clear()

    def untried(self, ways: list[Way]) -> list[tuple[AskedPing, Way]]:
        """What is to be sent now; counts as tried from here on."""
        due = []
        for asked in self._open.values():
            for way in ways:
                if way not in asked.tried:
                    asked.tried.add(way)
                    due.append((asked, way))
        return due

    def try_again(self, *ways: Way) -> None:
        """What went by these ways (none given: by any) may have been lost for a reason that has ended."""
        for asked in self._open.values():
            asked.tried = asked.tried.difference(ways) if ways else set()

    def relay_gone(self, region: int, now: float) -> None:
        """A relay says that the peer is not there, so what went by it is lost; relays do not tell when it comes."""
        if self._open:
            self._gone[region] = now + RELAY_AGAIN_S

    def next_timeout(self) -> float | None:
        if not self._open:
            return None
        return min(*self._gone.values(), *(asked.until for asked in self._open.values()), float("inf"))

    def handle_timeout(self, now: float) -> None:
        due = [region for region, at in self._gone.items() if at <= now]
        for region in due:
            del self._gone[region]
            self.try_again(region)

    def over(self, now: float) -> list[AskedPing]:
        """Take those whose time is over, oldest first."""
        over = [asked for asked in self._open.values() if asked.until <= now]
        for asked in over:
            self.answered(asked.request)
        return over
