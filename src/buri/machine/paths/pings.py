"""Pings in flight to one peer: bounded, oldest first, each with its own end."""

from __future__ import annotations

import enum

import msgspec

from buri.core.addresses import AddrPort

MAX_IN_FLIGHT = 512


class Purpose(enum.Enum):
    """Why a ping was sent; decides what its answer or its silence means."""

    DISCOVERY = "discovery"
    HEARTBEAT = "heartbeat"
    SIZE = "size"
    ASKED = "asked"  # a person's `ping`


class Size(enum.Enum):
    """How long a ping is, and how it travels."""

    SMALL = "small"
    WHOLE = "full size, with DF"
    CUT = "full size, may be cut on its way"


class PingInFlight(msgspec.Struct, frozen=True):
    """`address` None: it went by the relay `region`. `request` is the person's, 0 for none."""

    txid: bytes
    purpose: Purpose
    sent_at: float
    expires_at: float
    address: AddrPort | None = None
    size: Size = Size.SMALL
    region: int = 0
    request: int = 0


class PingsInFlight:
    """Answers are matched by transaction id: 12 random bytes that only the peer could read."""

    def __init__(self) -> None:
        self._by_txid: dict[bytes, PingInFlight] = {}

    def __len__(self) -> int:
        return len(self._by_txid)

    def add(self, ping: PingInFlight) -> None:
        if len(self._by_txid) >= MAX_IN_FLIGHT:
            del self._by_txid[next(iter(self._by_txid))]
        self._by_txid[ping.txid] = ping

    def take(self, txid: bytes) -> PingInFlight | None:
        """The ping this answers, forgotten with that; None when there is none (late, twice, or made up)."""
        return self._by_txid.pop(txid, None)

    def expired(self, now: float) -> list[PingInFlight]:
        """Take those whose time is over, oldest first."""
        over = [ping for ping in self._by_txid.values() if ping.expires_at <= now]
        for ping in over:
            del self._by_txid[ping.txid]
        return over

    def next_expiry(self) -> float | None:
        return min((ping.expires_at for ping in self._by_txid.values()), default=None)

    def clear(self) -> None:
        """Forget all but what a person asked for: after a network change silence means nothing."""
        self._by_txid = {txid: ping for txid, ping in self._by_txid.items() if ping.purpose is Purpose.ASKED}
