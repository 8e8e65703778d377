"""The addresses at which one peer may be reachable, and what is known of each.

An address is kept because the netmap names it, because the peer's last call-me-maybe did, or because a sealed ping came
from it. Named addresses go when their namer no longer names them; learnt ones go when the table is over its bound,
oldest sign of life first. The address in use never goes that way. Order is the order of arrival: no hash decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from buri.core.addresses import IPV6_FROM_IPV4, VIA_4_TO_6, AddrPort, is_tailnet_address
from buri.machine.paths.limits import MAX_CANDIDATES, PING_SPACING_S


class Candidate:
    """One address. Times are None for "never"."""

    __slots__ = (
        "address",
        "called",
        "full_size",
        "heard_at",
        "judged_at",
        "latency_s",
        "named",
        "pinged_at",
        "pong_at",
        "unproven",
    )

    def __init__(self, address: AddrPort) -> None:
        self.address = address
        self.named = False  # by the netmap
        self.called = False  # by the peer's last call-me-maybe
        self.heard_at: float | None = None  # a ping of the peer came from here
        self.pinged_at: float | None = None
        self.pong_at: float | None = None
        self.latency_s: float | None = None
        self.full_size: bool | None = None  # whether full-size datagrams pass unfragmented; None: not known
        self.judged_at = 0.0  # when they were last seen not to, or tried again
        self.unproven = False  # full-size datagrams did not pass at all: no path until one does

    def may_be_pinged(self, now: float) -> bool:
        """Whether the spacing between discovery pings allows one."""
        return self.pinged_at is None or now - self.pinged_at >= PING_SPACING_S

    def may_be_pinged_back(self, now: float) -> bool:
        """Whether a ping just heard from here is news since our last: then the way is open now, and no spacing holds.

        Asked before `hear` notes it. At most one more ping for each of ours, so two nodes cannot echo without end.
        """
        if self.may_be_pinged(now) or self.pinged_at is None:
            return True
        return self.heard_at is None or self.heard_at < self.pinged_at

    def last_sign(self) -> float:
        """When this address last showed life; -inf for never."""
        signs = [at for at in (self.heard_at, self.pong_at) if at is not None]
        return max(signs, default=float("-inf"))

    def forget_measurements(self) -> None:
        """The network changed below: nothing measured holds."""
        self.pinged_at = self.pong_at = self.latency_s = self.full_size = None
        self.unproven = False


class Candidates:
    """A bounded table of one peer's addresses."""

    def __init__(self) -> None:
        self._by_address: dict[AddrPort, Candidate] = {}

    def __iter__(self) -> Iterator[Candidate]:
        return iter(list(self._by_address.values()))

    def __len__(self) -> int:
        return len(self._by_address)

    def get(self, address: AddrPort) -> Candidate | None:
        return self._by_address.get(address)

    def name(self, addresses: Sequence[AddrPort], in_use: AddrPort | None) -> list[Candidate]:
        """Take the netmap's list in place of its last one; returns the new candidates."""
        for candidate in self:
            candidate.named = False
        return self._take(addresses, "named", in_use)

    def call(self, addresses: Sequence[AddrPort], in_use: AddrPort | None) -> list[Candidate]:
        """Take a call-me-maybe's list in place of the last one; returns all it lists."""
        for candidate in self:
            candidate.called = False
        self._take(addresses, "called", in_use)
        return [candidate for candidate in self if candidate.called]

    def hear(self, address: AddrPort, now: float, in_use: AddrPort | None) -> Candidate | None:
        """A sealed ping came from here; None when the address is never one of a peer's or the table is full."""
        if not usable(address):
            return None
        candidate = self._by_address.get(address)
        if candidate is None:
            candidate = self._by_address[address] = Candidate(address)
        candidate.heard_at = now
        self._prune(in_use)
        return self._by_address.get(address)

    def _take(self, addresses: Iterable[AddrPort], mark: str, in_use: AddrPort | None) -> list[Candidate]:
        fresh = []
        for address in list(addresses)[:MAX_CANDIDATES]:
            if not usable(address):
                continue
            candidate = self._by_address.get(address)
            if candidate is None:
                candidate = self._by_address[address] = Candidate(address)
                fresh.append(candidate)
            setattr(candidate, mark, True)
        for candidate in self:
            if not (candidate.named or candidate.called) and candidate.heard_at is None and candidate.address != in_use:
                del self._by_address[candidate.address]
        self._prune(in_use)
        return [candidate for candidate in fresh if candidate.address in self._by_address]

    def _prune(self, in_use: AddrPort | None) -> None:
        over = len(self._by_address) - MAX_CANDIDATES
        if over <= 0:
            return
        losers = [c for c in self._by_address.values() if c.address != in_use]
        losers.sort(key=lambda c: (c.named or c.called, c.last_sign()))
        for candidate in losers[:over]:
            del self._by_address[candidate.address]


def usable(address: AddrPort) -> bool:
    """Whether a peer can truthfully be at this address: not inside the tailnet, not a group, not nowhere."""
    ip = address.address
    if address.port == 0 or ip.is_multicast or ip.is_unspecified:
        return False
    if ip.version == 4:
        return not is_tailnet_address(ip)
    return ip not in IPV6_FROM_IPV4 and ip not in VIA_4_TO_6 and not is_tailnet_address(ip)
