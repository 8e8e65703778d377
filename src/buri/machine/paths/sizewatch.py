"""Watches whether one peer's path carries full-size packets, from its first pong to its last (see `fullsize`).

It sends its own pings and keeps `full_size`, `judged_at` and `unproven` of the candidates; what follows for the path is
its owner's to decide.
"""

from __future__ import annotations

import enum
from typing import Protocol

from buri.core.addresses import AddrPort
from buri.machine.paths import limits
from buri.machine.paths.candidates import Candidate
from buri.machine.paths.fullsize import TRIES, TRIES_IN_DOUBT, FullSizeProbe, Step
from buri.machine.paths.pings import PingInFlight, Purpose, Size


class Send(Protocol):
    """How a ping goes out."""

    def __call__(self, address: AddrPort, purpose: Purpose, now: float, *, size: Size) -> None: ...


class Verdict(enum.Enum):
    """What a probe found."""

    NOT_WHOLE = "full-size packets do not pass whole"
    NOT_AT_ALL = "full-size packets do not pass"


class SizeWatch:
    """One peer's; `best` is always the address in use."""

    __slots__ = ("_probe", "_send", "_whole_sent_at")

    def __init__(self, send: Send) -> None:
        self._send = send
        self._probe = FullSizeProbe()
        self._whole_sent_at: float | None = None  # a padded heartbeat that has no answer yet

    def next_timeout(self) -> float | None:
        return self._probe.next_timeout()

    def forget(self) -> None:
        """What is under way means nothing any more."""
        self._probe.stop()
        self._whole_sent_at = None

    def heartbeat_size(self, best: Candidate, now: float, *, trusted: bool) -> Size:
        """How long the heartbeat is that goes out now; a path that cuts is tried whole now and then."""
        whole = trusted and best.full_size is True
        self._whole_sent_at = now if whole else None
        if best.full_size is False and now - best.judged_at >= limits.FULL_SIZE_RETRY_S:
            best.judged_at = now
            self._send(best.address, Purpose.SIZE, now, size=Size.WHOLE)
        return Size.WHOLE if whole else Size.SMALL

    def note_pong(self, candidate: Candidate, ping: PingInFlight, best: Candidate | None, now: float) -> None:
        """What the return of a ping tells of its address."""
        if ping.size is Size.SMALL:
            if candidate.unproven:  # it lives; whether it carries has to be seen before anything goes there
                self.try_unproven(candidate, now)
            return
        if ping.size is Size.WHOLE:
            candidate.full_size, candidate.unproven = True, False
        elif candidate.unproven:
            candidate.full_size, candidate.unproven = False, False
            candidate.judged_at = now
        if candidate is best:
            self._whole_sent_at = None
        if candidate.address == self._probe.address:
            self._probe.stop()

    def try_unproven(self, candidate: Candidate, now: float) -> None:
        """Ping an address by which full-size packets did not pass, both ways of it."""
        for size in (Size.WHOLE, Size.CUT):
            self._send(candidate.address, Purpose.SIZE, now, size=size)

    def path_answered(self, best: Candidate, ping: PingInFlight | None, now: float) -> None:
        """The address in use is trusted anew (`ping` None: it is a new one): probe what is not known or in doubt."""
        if best.full_size is None:
            if self._probe.address is None:
                self._start(best, Size.WHOLE, now)
            return
        if ping is None or ping.size is not Size.SMALL or self._whole_sent_at is None:
            return
        if ping.sent_at > self._whole_sent_at:  # the long one was overtaken, or is lost
            self._whole_sent_at = None
            self._start(best, Size.WHOLE, now, tries=TRIES_IN_DOUBT)

    def narrowed(self, candidate: Candidate, best: Candidate | None, now: float) -> None:
        """Full-size packets do not pass with DF: see whether they do without."""
        candidate.full_size = False
        candidate.judged_at = now
        if candidate is best:
            self._whole_sent_at = None
            self._start(candidate, Size.CUT, now, tries=TRIES_IN_DOUBT)  # long packets are being lost meanwhile

    def handle_timeout(self, best: Candidate | None, now: float) -> Verdict | None:
        """Do the probe's next step, while its address is still the path; returns what it found at its end."""
        if best is None or self._probe.address != best.address:
            self._probe.stop()
            return None
        match self._probe.step(now):
            case Step.PING:
                self._send(best.address, Purpose.SIZE, now, size=self._probe.stage)
            case Step.SMALL_PING:
                self._send(best.address, Purpose.HEARTBEAT, now, size=Size.SMALL)
            case Step.CONCLUDE:
                small_passed = best.pong_at is not None and best.pong_at >= self._probe.small_sent_at
                self._probe.stop()
                if small_passed:
                    return Verdict.NOT_WHOLE if self._probe.stage is Size.WHOLE else Verdict.NOT_AT_ALL
            case None:
                pass
        return None

    def _start(self, best: Candidate, stage: Size, now: float, tries: int = TRIES) -> None:
        self._probe.start(best.address, stage, best.latency_s or 0.0, now, tries)
        self.handle_timeout(best, now)
