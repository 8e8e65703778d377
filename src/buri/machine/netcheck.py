"""Netcheck: what our network is like, measured by STUN (upstream: `net/netcheck/netcheck.go`; wire reference 1e).

One check: `start`, a plan of STUN requests to the relays of the map, answers by `handle_stun`, and at the end one
`NetReport`, at most 5 s later. A full check asks every region three times; a quick one the home region four times, the
two next quickest twice and one more once. A region that answered is asked no more, except that two different STUN
destinations must have answered before we know whether the NAT changes ports by destination ("hard"), if the map has
two. When STUN brings nothing in 3 s, UDP counts as blocked, and the shell is asked to time HTTPS instead
(`ProbeHTTPS`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import msgspec

from buri.core.addresses import AddrPort
from buri.core.errors import WireError
from buri.machine.contract import Randomness
from buri.machine.paths.values import SendUDP
from buri.machine.relayaddresses import Resolved, regions_of, stun_address
from buri.wire import stun
from buri.wire.tailcfg.derpmap import DERPMap, DERPRegion
from buri.wire.tailcfg.node import NetInfo

STUN_S = 3.0
REPORT_S = 5.0
FULL_EVERY_S = 300.0
_FULL_TRIES, _FULL_GAP_S = 3, 0.1
_QUICK_HOME_TRIES, _QUICK_NEXT_TRIES, _QUICK_GAP_S = 4, 2, 0.2
_QUICK_NEXT_REGIONS = 2
_SETTLE_S = 0.2  # once enough answered, so long for the others
_ENOUGH_REGIONS = 3


class NetReport(msgspec.Struct, frozen=True):
    """What one check found. Latencies in seconds by region id; None: not known.

    `global_ipv4/6` is our address as the first server saw it; `mapped_ipv4` all it was seen as. `hard_nat` is "mapping
    varies by destination". `complete`: every region was asked, not only the nearest.
    """

    udp: bool = False
    ipv4: bool = False
    ipv6: bool = False
    hard_nat: bool | None = None
    global_ipv4: AddrPort | None = None
    global_ipv6: AddrPort | None = None
    mapped_ipv4: tuple[AddrPort, ...] = ()
    region_latency_s: dict[int, float] = {}
    region_latency_ipv4_s: dict[int, float] = {}
    region_latency_ipv6_s: dict[int, float] = {}
    complete: bool = True

    def net_info(self, *, home: int, os_has_ipv6: bool, port_mapped: bool = False, firewall_mode: str = "") -> NetInfo:
        """The report as control wants it in Hostinfo.NetInfo; latencies keyed "<region>-v4" and "<region>-v6"."""
        latency = {f"{region}-v4": seconds for region, seconds in self.region_latency_ipv4_s.items()}
        latency |= {f"{region}-v6": seconds for region, seconds in self.region_latency_ipv6_s.items()}
        return NetInfo(
            mapping_varies_by_dest_ip=self.hard_nat,
            working_ipv6=self.ipv6,
            os_has_ipv6=os_has_ipv6,
            working_udp=self.udp,
            have_port_map=port_mapped,
            preferred_derp=home,
            derp_latency=latency or None,
            firewall_mode=firewall_mode,
        )


class ProbeHTTPS(msgspec.Struct, frozen=True, tag=True):
    """UDP brings nothing: time an HTTPS GET of /derp/latency-check of this region; answer by `handle_https_latency`."""

    region: int


NetcheckEvent = ProbeHTTPS | NetReport


class _Probe(msgspec.Struct, frozen=True):
    send_at: float
    region: int
    address: AddrPort


class _Sent(msgspec.Struct, frozen=True):
    region: int
    address: AddrPort
    sent_at: float


class Netcheck:
    """Runs one check after another; `start` during a check is ignored unless `restart`."""

    def __init__(self, rng: Randomness) -> None:
        self._rng = rng
        self._transmits: deque[SendUDP] = deque()
        self._events: deque[NetcheckEvent] = deque()
        self._last: NetReport | None = None
        self._last_full_at: float | None = None
        self._started_at: float | None = None
        self._clear()

    def _clear(self) -> None:
        self._plan: deque[_Probe] = deque()
        self._sent: dict[bytes, _Sent] = {}
        self._regions: list[int] = []
        self._awaited: list[int] = []
        self._destinations: set[AddrPort] = set()  # membership alone; order never read
        self._answers_ipv4: dict[AddrPort, AddrPort] = {}
        self._answers_ipv6: dict[AddrPort, AddrPort] = {}
        self._latency_ipv4: dict[int, float] = {}
        self._latency_ipv6: dict[int, float] = {}
        self._latency_https: dict[int, float] = {}
        self._enough_at: float | None = None
        self._asked_https = False
        self._https_open: list[int] = []
        self._complete = True

    # ---- verbs ----

    @property
    def running(self) -> bool:
        return self._started_at is not None

    @property
    def last_report(self) -> NetReport | None:
        return self._last

    def start(
        self,
        derp_map: DERPMap,
        now: float,
        *,
        home: int = 0,
        resolved: Resolved | None = None,
        ipv6: bool = True,
        full: bool = False,
        restart: bool = False,
        gone: int = 0,
    ) -> None:
        """Begin a check. `ipv6`: this host has it. `full`, or five minutes since the last full one: ask all regions.

        `gone` is a region whose relay has just failed: it may answer, and is not waited for while others do.
        """
        if self.running and not restart:
            return
        self._clear()
        self._started_at = now
        regions = [region for region in regions_of(derp_map) if not region.no_measure_no_home]
        self._complete = full or self._full_is_due(now)
        if self._complete:
            tries = [(region, _FULL_TRIES, _FULL_GAP_S) for region in regions]
        else:
            tries = self._quick_tries(regions, home)
        probes: list[_Probe] = []
        for region, count, gap_s in tries:
            probes.extend(self._probes_of(region, count, gap_s, resolved or {}, ipv6, now))
        self._regions = list(dict.fromkeys(probe.region for probe in probes))
        self._awaited = [region for region in self._regions if region != gone] or self._regions
        self._destinations = {
            probe.address for probe in probes if probe.address.address.version == 4 and probe.region in self._awaited
        }
        self._plan = deque(sorted(probes, key=lambda probe: probe.send_at))
        if not self._regions:
            self._ask_https([region.region_id for region in regions])
        self.handle_timeout(now)

    def cancel(self) -> None:
        """Drop a check under way without a report."""
        self._started_at = None
        self._clear()

    # ---- input ----

    def handle_stun(self, source: AddrPort, data: bytes, now: float) -> bool:
        """The engine's STUNIn; whether it answered a request of this check."""
        try:
            txid, mapped = stun.parse_response(data)
        except WireError:
            return False
        sent = self._sent.pop(txid, None)
        if sent is None or sent.address != source or not self.running:
            return False
        latency_s = max(0.0, now - sent.sent_at)
        ipv4 = mapped.address.version == 4
        answers, latencies = (
            (self._answers_ipv4, self._latency_ipv4) if ipv4 else (self._answers_ipv6, self._latency_ipv6)
        )
        answers.setdefault(source, mapped)
        latencies[sent.region] = min(latency_s, latencies.get(sent.region, latency_s))
        self._advance(now)
        return True

    def handle_https_latency(self, region: int, latency_s: float | None, now: float) -> None:
        """The answer to ProbeHTTPS; None when it failed."""
        if not self.running:
            return
        if latency_s is not None:
            self._latency_https[region] = latency_s
        if region in self._https_open:
            self._https_open.remove(region)
        self._advance(now)

    # ---- output ----

    def poll_transmit(self) -> SendUDP | None:
        return self._transmits.popleft() if self._transmits else None

    def poll_event(self) -> NetcheckEvent | None:
        return self._events.popleft() if self._events else None

    def next_timeout(self) -> float | None:
        if self._started_at is None:
            return None
        times = [self._started_at + (REPORT_S if self._asked_https else STUN_S)]
        if self._plan:
            times.append(self._plan[0].send_at)
        if self._enough_at is not None:
            times.append(self._enough_at + _SETTLE_S)
        return min(times)

    def handle_timeout(self, now: float) -> None:
        while self.running and self._plan and self._plan[0].send_at <= now:
            self._send(self._plan.popleft(), now)
        self._advance(now)

    # ---- helpers ----

    def _full_is_due(self, now: float) -> bool:
        if self._last is None or not self._last.region_latency_s:
            return True
        return self._last_full_at is None or now - self._last_full_at >= FULL_EVERY_S

    def _quick_tries(self, regions: list[DERPRegion], home: int) -> list[tuple[DERPRegion, int, float]]:
        seen: Mapping[int, float] = self._last.region_latency_s if self._last is not None else {}
        ranked = sorted(regions, key=lambda r: (r.region_id != home, seen.get(r.region_id, 1e9), r.region_id))
        tries = []
        for place, region in enumerate(ranked[: 2 + _QUICK_NEXT_REGIONS]):
            count = _QUICK_HOME_TRIES if place == 0 else _QUICK_NEXT_TRIES if place <= _QUICK_NEXT_REGIONS else 1
            tries.append((region, count, _QUICK_GAP_S))
        return tries

    def _probes_of(
        self, region: DERPRegion, count: int, gap_s: float, resolved: Resolved, ipv6: bool, now: float
    ) -> list[_Probe]:
        nodes = region.nodes or []
        probes = []
        for attempt in range(max(count, min(len(nodes), count + 1))):
            node = nodes[attempt % len(nodes)]
            for family in (False, True) if ipv6 else (False,):
                address = stun_address(node, resolved, ipv6=family)
                if address is not None:
                    probes.append(_Probe(now + attempt * gap_s, region.region_id, address))
        return probes

    def _send(self, probe: _Probe, now: float) -> None:
        ipv4 = probe.address.address.version == 4
        answered = probe.region in (self._latency_ipv4 if ipv4 else self._latency_ipv6)
        second_wanted = ipv4 and self._hard_nat_is_open() and probe.address not in self._answers_ipv4
        if answered and not second_wanted:
            return
        txid = self._rng.randbytes(stun.TXID_BYTES)
        self._sent[txid] = _Sent(probe.region, probe.address, now)
        self._transmits.append(SendUDP(probe.address, stun.build_request(txid)))

    def _hard_nat_is_open(self) -> bool:
        return len(self._answers_ipv4) < 2 <= len(self._destinations)

    def _advance(self, now: float) -> None:
        """Finish, or ask for HTTPS, when it is time."""
        if self._started_at is None:
            return
        answered = self._latency_ipv4.keys() | self._latency_ipv6.keys()
        missing = [region for region in self._awaited if region not in answered]
        unsettled = self._hard_nat_is_open() or bool(missing)
        if answered and not unsettled:
            self._finish(now)
            return
        if self._enough_at is None and not self._hard_nat_is_open() and len(answered) >= _ENOUGH_REGIONS:
            self._enough_at = now + self._slack_s()
        if self._enough_at is not None and now >= self._enough_at + _SETTLE_S:
            self._finish(now)
            return
        # Compared as `next_timeout` sums: a difference could round to just under its due time for ever.
        stun_is_over = now >= self._started_at + STUN_S
        if answered and stun_is_over:
            self._finish(now)
            return
        if stun_is_over and not self._asked_https:
            self._ask_https(self._regions)
        if self._asked_https and (not self._https_open or now >= self._started_at + REPORT_S):
            self._finish(now)

    def _slack_s(self) -> float:
        """Regions up to twice as far as the farthest that answered may still come."""
        return max([*self._latency_ipv4.values(), *self._latency_ipv6.values()], default=0.0)

    def _ask_https(self, regions: list[int]) -> None:
        self._asked_https = True
        self._https_open = list(regions)
        self._events.extend(ProbeHTTPS(region) for region in regions)

    def _finish(self, now: float) -> None:
        report = self._report()
        if self._complete:
            self._last_full_at = now
        self._last = report
        self.cancel()
        self._events.append(report)

    def _report(self) -> NetReport:
        latency: dict[int, float] = dict(self._latency_https)
        for found in (self._latency_ipv4, self._latency_ipv6):
            for region, seconds in found.items():
                latency[region] = min(seconds, latency.get(region, seconds))
        mapped = tuple(dict.fromkeys(self._answers_ipv4.values()))
        return NetReport(
            udp=bool(self._answers_ipv4 or self._answers_ipv6),
            ipv4=bool(self._answers_ipv4),
            ipv6=bool(self._answers_ipv6),
            hard_nat=len(mapped) > 1 if len(self._answers_ipv4) > 1 else None,
            global_ipv4=mapped[0] if mapped else None,
            global_ipv6=next(iter(self._answers_ipv6.values()), None),
            mapped_ipv4=mapped,
            region_latency_s=latency,
            region_latency_ipv4_s=dict(self._latency_ipv4),
            region_latency_ipv6_s=dict(self._latency_ipv6),
            complete=self._complete,
        )
