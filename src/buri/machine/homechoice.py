"""Which relay region is home: the quickest of the last five minutes, and reluctance to move.

Upstream: `net/netcheck/netcheck.go` (addReportHistoryAndSetPreferredDERP), `wgengine/magicsock/derp.go`.
"""

from __future__ import annotations

from collections import deque

from buri.machine.contract import Randomness
from buri.machine.netcheck import NetReport
from buri.machine.relayaddresses import regions_of
from buri.wire.tailcfg.derpmap import DERPMap

HISTORY_S = 300.0
LEAST_GAIN_S = 0.010  # a home less than this slower than the best is kept
KEEP_FRACTION = 2 / 3  # … and so is one of which the best takes more than this
HOME_SPOKE_S = 120.0
MAX_REPORTS = 64
FAILING_S = 120.0  # a relay that cannot be connected to is no choice that long


class HomeChoice:
    """Remembers reports and answers with the region that should be home."""

    def __init__(self, rng: Randomness) -> None:
        self.control_connected = True
        self._die = rng.random()  # the pseudo-random region of a node that can measure nothing stays the same
        self._eligible: list[int] = []
        self._scores: dict[int, float] = {}
        self._history: deque[tuple[float, dict[int, float]]] = deque(maxlen=MAX_REPORTS)
        self._home_spoke_at: float | None = None
        self._failing_until: dict[int, float] = {}

    def set_map(self, derp_map: DERPMap, now: float) -> None:
        """Take the regions that may be home; one marked Avoid only when there is no other."""
        regions = [region for region in regions_of(derp_map) if not region.no_measure_no_home]
        wanted = [region.region_id for region in regions if not region.avoid]
        self._eligible = wanted or [region.region_id for region in regions]
        params = derp_map.home_params
        self._scores = dict(params.region_score or {}) if params is not None else {}

    def add_report(self, report: NetReport, now: float) -> None:
        self._history.append((now, dict(report.region_latency_s)))
        while self._history and now - self._history[0][0] > HISTORY_S:
            self._history.popleft()

    def home_spoke(self, now: float) -> None:
        """The home relay sent something."""
        self._home_spoke_at = now

    def home_went(self) -> None:
        """The connection to home ended: what it said before is no reason to stay."""
        self._home_spoke_at = None

    def relay_fails(self, region: int, now: float) -> None:
        """This region's relay cannot be connected to, whatever its STUN says."""
        self._failing_until[region] = now + FAILING_S

    def relay_works(self, region: int) -> None:
        self._failing_until.pop(region, None)

    def choose(self, home: int, now: float) -> int:
        """The region that should be home now, given what is; 0 when the map has none."""
        if not self._eligible:
            return 0
        if home not in self._eligible:
            if home == 0 and not self._history and len(self._eligible) > 1:
                return 0  # the first measurement is under way, and a choice once made is kept for small gains
            return self._quickest(now) or self._any()
        if not self.control_connected or not self._history:
            return home
        latest = self._history[-1][1]
        if not latest:
            return home
        if home not in latest and self._spoke_lately(now):
            return home
        best = self._quickest(now) or home
        if best == home or home not in latest or self._fails(home, now):
            return best
        home_s, best_s = self._latency(home), self._latency(best)
        if home_s - best_s < LEAST_GAIN_S or best_s > home_s * KEEP_FRACTION:
            return home
        return best

    def _spoke_lately(self, now: float) -> bool:
        return self._home_spoke_at is not None and now - self._home_spoke_at < HOME_SPOKE_S

    def _latency(self, region: int) -> float:
        """The best of the history, times the region's score (a score under 1 makes it preferred)."""
        best_s = min((seen[region] for _, seen in self._history if region in seen), default=float("inf"))
        score = self._scores.get(region, 0.0)
        return best_s * score if score > 0 else best_s

    def _fails(self, region: int, now: float) -> bool:
        return now < self._failing_until.get(region, now)

    def _quickest(self, now: float) -> int:
        """Of the regions that the latest report could reach, the one with the best history; 0 for none."""
        latest = self._history[-1][1] if self._history else {}
        reachable = [region for region in self._eligible if region in latest and not self._fails(region, now)]
        return min(reachable, key=lambda region: (self._latency(region), region), default=0)

    def _any(self) -> int:
        return self._eligible[int(self._die * len(self._eligible)) % len(self._eligible)]
