"""One peer's paths: the machine that finds, trusts, keeps and leaves an address (wire reference 1e).

Life of a path:

- *Relay first.* With nothing known, packets go by the peer's relay, as soon as that is connected.
- *Discovery.* While the session is active (used within 45 s) and no address is trusted, every candidate is pinged, no
  address more often than every 5 s, and the peer is sent a call-me-maybe by relay, so that both sides' firewalls open.
- *Trust.* A pong makes its address the path, trusted for 6.5 s; a heartbeat every 3 s renews that. Of two answered
  addresses `scoring` decides; an untrusted one yields to any pong.
- *Doubt.* A heartbeat that stays unanswered (sent twice, 1.5 s) ends trust before its time. Without trust, packets go
  by the address and by the relay; discovery starts again; a ping timing out then clears the address.
- *Full size.* A new path is also pinged at the size of a full packet, and so is a trusted one by its heartbeats. If only
  small pings return, the path loses DF and GSO (`gso` False); if even fragments do not return, it is no path until a
  full-size ping does (unless there is no relay either: then small packets pass at least).
- *A peer that cannot cut* (`cuts` False) sends its packets whole or loses them, and does not notice. On a path that is
  seen to be narrow it gets no pong, so that it takes the relay.

Invariants: packets have one destination whenever an address is trusted, and never only an untrusted one when the peer
has a relay; at most `MAX_CANDIDATES` addresses and `MAX_IN_FLIGHT` pings are kept.
"""

from __future__ import annotations

import errno
from ipaddress import IPv4Address

from buri.core.addresses import AddrPort
from buri.machine.paths import limits
from buri.machine.paths.asked import AskedPing, AskedPings, Way
from buri.machine.paths.callmemaybe import CallMeMaybeGate
from buri.machine.paths.candidates import Candidate, Candidates
from buri.machine.paths.fullsize import PADDING_BYTES
from buri.machine.paths.link import DiscoLink
from buri.machine.paths.pings import PingInFlight, PingsInFlight, Purpose, Size
from buri.machine.paths.reasons import OwnNetwork, Search, why_searching
from buri.machine.paths.scoring import PathQuality, is_better, is_private
from buri.machine.paths.sizewatch import SizeWatch, Verdict
from buri.machine.paths.values import LocalEndpoint, PathChosen, PathInfo, PeerPathInfo, PingDone
from buri.wire import disco


class PeerPaths:
    """Everything known of the ways to one peer. The manager feeds it; `link` carries what it sends and says."""

    def __init__(self, info: PeerPathInfo, link: DiscoLink, now: float) -> None:
        self.info = info
        self.call_me_maybe = CallMeMaybeGate()
        self._link = link
        self._looked_at: Candidates | None = None
        self._pings = PingsInFlight()
        self._asked = AskedPings()
        self._best: Candidate | None = None
        self._trusted_until = now
        self._last_active_at: float | None = None
        self._heartbeat_at: float | None = None
        self._repeat_at: float | None = None
        self._doubt_at: float | None = None
        self._last_discovery_at: float | None = None
        self._searching_since: float | None = None  # no address is trusted since then, and one is wanted
        self._relay_route: int | None = None  # a region it was heard through, nearer than its home
        self._relay_says_gone = False
        self._chosen: PathChosen | None = None
        self._sizes = SizeWatch(self._send_ping)
        self._peer_probes_size = False
        self._heartbeat_sent_at = now
        self._answers = limits.TokenBucket(limits.PINGS_ANSWERED)
        self._choose(now, "relay first")

    @property
    def _candidates(self) -> Candidates:
        """Its addresses, looked at when the first is asked for: most peers of a large tailnet are never talked to."""
        if self._looked_at is None:
            self._looked_at = Candidates()
            self._looked_at.name(self.info.endpoints, None)
        return self._looked_at

    # ---- what the layers around tell ----

    def set_info(self, info: PeerPathInfo, now: float) -> None:
        """Take a newer netmap's word; a new disco key means a peer that restarted, of which nothing measured holds."""
        old, self.info = self.info, info
        if old.disco_key != info.disco_key:
            self._link.forget(old.disco_key)
            self._chosen = None  # the engine forgets such a peer as well: say its path whatever it is
            self._peer_probes_size = False
            self.reset(now, "the peer's disco key changed", keep_best=False)
        fresh = [] if self._looked_at is None else self._looked_at.name(info.endpoints, self._best_address())
        if old.home_region != info.home_region:
            self._relay_says_gone = False
        self._choose(now, "the peer's relay changed" if old.home_region != info.home_region else "netmap")
        if self.is_active(now) and not self.is_trusted(now):
            self._ping_candidates(fresh, now)
            self._use_relay(now)

    def activate(self, now: float) -> None:
        """Packets are being sent to this peer."""
        self._last_active_at = now
        if self._heartbeat_at is None:
            self._heartbeat(now)
        elif not self.is_trusted(now) and self._discovery_due(now):
            self._discover(now)
        if not self.is_trusted(now):
            self._use_relay(now)

    def reset(self, now: float, reason: str, *, keep_best: bool = True) -> None:
        """Below us something changed: nothing measured holds, but the address in use may still be right."""
        self._trusted_until = now
        self._repeat_at = self._doubt_at = None
        self._pings.clear()
        self._asked.try_again()
        self._sizes.forget()
        for candidate in self._looked_at or ():
            candidate.forget_measurements()
        if not keep_best:
            self._best = None
        self._last_discovery_at = self._searching_since = None
        self.call_me_maybe.reset()
        self._choose(now, reason)
        if self.is_active(now):
            self._heartbeat(now)

    def handle_path_fault(self, address: AddrPort, error_number: int, now: float) -> None:
        """The operating system could not send there."""
        candidate = self._candidates.get(address)
        if candidate is None:
            return
        if error_number == errno.EMSGSIZE:
            if candidate.full_size is not False:
                self._sizes.narrowed(candidate, self._best, now)
                self._choose(now, "packets are too long for the path")
            return
        candidate.latency_s = candidate.pong_at = None
        if candidate is self._best:
            self._best = None
            self._choose(now, "the address cannot be sent to")
            if self.is_active(now):
                self._discover(now)

    def handle_relay_seen(self, region: int, now: float) -> None:
        """It was heard through this region's relay."""
        if self._relay_says_gone:
            self._relay_says_gone = False
            self._asked.try_again(region)
        if region != self._relay_route:
            self._relay_route = region
            self._choose(now, "heard through another relay")

    def handle_relay_up(self, region: int, now: float) -> None:
        """We are connected to that relay."""
        self._asked.try_again(region)
        if region == self.relay_region():
            self._choose(now, "the relay is connected")

    def handle_relay_lost(self, region: int, now: float) -> None:
        """Our connection to that relay ended: a way back through it is none now."""
        if region == self._relay_route:
            self._relay_route = None
        self._choose(now, "the relay went away")

    def handle_relay_gone(self, region: int, now: float) -> None:
        """A relay says that it is not there: forget that way; its home region stays what the netmap says."""
        if region == self.info.home_region:
            self._relay_says_gone = True
        self._asked.relay_gone(region, now)
        if region == self._relay_route:
            self._relay_route = None
            self._choose(now, "the relay lost the peer")

    def ping(self, request: int, size_bytes: int, patience_s: float, now: float) -> None:
        """Ping for a person: by the address in use, or, with none trusted, by the relay and all candidates.

        Ways that open while it waits are tried as well (`send_asked`).
        """
        self.activate(now)
        self._asked.add(AskedPing(request, max(0, size_bytes - disco.PING_BYTES), patience_s, now))

    def send_asked(self, now: float) -> None:
        """Send a person's pings by every way that is open now and was not tried for them."""
        if not len(self._asked) or not self._link.can_reach(self.info.disco_key):
            return
        for asked, way in self._asked.untried(self._open_ways(now)):
            address, region = (None, way) if isinstance(way, int) else (way, 0)
            self._send_ping(
                address,
                Purpose.ASKED,
                now,
                request=asked.request,
                region=region,
                padding_bytes=asked.padding_bytes,
                lives_s=max(limits.PING_TIMEOUT_S, asked.until - now),
            )

    # ---- what the peer says ----

    def handle_ping(self, ping: disco.Ping, source: AddrPort | None, region: int, now: float) -> None:
        """Answer where it came from; a UDP source is a candidate, and pinged back while no address is trusted."""
        if not self._answers.take(now):
            self._link.count("ping_over_limit")
            return
        if source is None:
            pong = disco.Pong(ping.txid, _relay_source(region))
            self._link.send_relay(pong, self.info.disco_key, self.info.key, region, now)
            return
        self._peer_probes_size = self._peer_probes_size or ping.padding_bytes >= PADDING_BYTES
        known = self._candidates.get(source)
        if known is None or not self._should_avoid(known):
            self._link.send_udp(disco.Pong(ping.txid, source), self.info.disco_key, source)
        ping_back = not self.is_trusted(now) and (known is None or known.may_be_pinged_back(now))
        candidate = self._candidates.hear(source, now, self._best_address())
        if ping_back and candidate is not None:
            self._send_ping(source, Purpose.DISCOVERY, now)

    def handle_pong(self, pong: disco.Pong, now: float) -> PingDone | None:
        """Measure; returns the end of a person's ping when this was its answer."""
        ping = self._pings.take(pong.txid)
        if ping is None:
            self._link.count("pong_unexpected")
            return None
        latency_s = max(0.0, now - ping.sent_at)
        if ping.address is not None and (candidate := self._candidates.get(ping.address)) is not None:
            self._note_pong(candidate, ping, latency_s, now)
        if ping.purpose is not Purpose.ASKED:
            return None
        self._asked.answered(ping.request)
        return PingDone(ping.request, self.info.key, latency_s, ping.address, ping.region)

    def handle_call_me_maybe(self, message: disco.CallMeMaybe, now: float) -> None:
        """The peer looks for a way to us: ping all it lists at once, whatever was pinged before.

        Also when we trust a path: it may work one way only, and our pings open our own firewall.
        """
        if not self.call_me_maybe.may_hear(now):
            self._link.count("call_me_maybe_over_limit")
            return
        if self.is_trusted(now) and self.is_active(now):
            self._heartbeat_at = now  # who trusts a path calls nobody: see whether ours still is one
        called = self._candidates.call(message.endpoints, self._best_address())
        for candidate in called:
            candidate.pinged_at = None
        self._ping_candidates(called, now)

    # ---- time ----

    def next_timeout(self) -> float | None:
        times = [
            self._heartbeat_at,
            self._repeat_at,
            self._doubt_at,
            self._pings.next_expiry(),
            self._asked.next_timeout(),
            self._sizes.next_timeout(),
        ]
        if self._chosen is not None and self._chosen.trusted:
            times.append(self._trusted_until)
        return min((at for at in times if at is not None), default=None)

    def handle_timeout(self, now: float) -> list[PingDone]:
        """Do what is due; returns the persons' pings that nobody answered."""
        self._expire_pings(now)
        self._asked.handle_timeout(now)
        unanswered = [
            PingDone(asked.request, self.info.key, error=self._why_unanswered(asked), lost=True)
            for asked in self._asked.over(now)
        ]
        if self._chosen is not None and self._chosen.trusted and not self.is_trusted(now):
            self._choose(now, "no answer within the time of trust")
            if self.is_active(now) and self._discovery_due(now):
                self._discover(now)
        self._handle_unanswered_heartbeat(now)
        if self._heartbeat_at is not None and now >= self._heartbeat_at:
            self._heartbeat(now)
        self._hear_verdict(self._sizes.handle_timeout(self._best, now), now)
        return unanswered

    # ---- what is known ----

    def is_active(self, now: float) -> bool:
        return self._last_active_at is not None and now - self._last_active_at < limits.SESSION_ACTIVE_S

    def is_trusted(self, now: float) -> bool:
        return self._best is not None and now < self._trusted_until

    def relay_region(self) -> int | None:
        """The region through which to send now: where it was heard, else its home."""
        if self._relay_route is not None and self._relay_route in self._link.relays_up:
            return self._relay_route
        return self.info.home_region or None

    def path_info(self, now: float, own: OwnNetwork) -> PathInfo:
        direct = self._best is not None and self.is_trusted(now)
        best = self._best if direct else None
        return PathInfo(
            key=self.info.key,
            address=best.address if best is not None else None,
            latency_s=best.latency_s if best is not None else None,
            relay_region=self.relay_region() or 0,
            active=self.is_active(now),
            why_relayed="" if direct else self._why_relayed(now, own),
        )

    def send_call_me_maybe(self, endpoints: tuple[LocalEndpoint, ...], now: float) -> None:
        """Tell the peer where we are; the manager calls this once endpoints are fresh and the relay is up."""
        region = self.relay_region()
        if region is None:
            return
        self.call_me_maybe.note_sent(now)
        message = disco.CallMeMaybe(
            tuple(endpoint.address for endpoint in endpoints[: disco.MAX_CALL_ME_MAYBE_ENDPOINTS])
        )
        self._link.send_relay(message, self.info.disco_key, self.info.key, region, now)

    # ---- helpers, in order of use ----

    def _best_address(self) -> AddrPort | None:
        return self._best.address if self._best is not None else None

    def _choose(self, now: float, reason: str) -> None:
        """Say the path anew if it differs from what was said."""
        trusted = self.is_trusted(now)
        path = PathChosen(
            key=self.info.key,
            udp=self._best_address(),
            relay_region=None if trusted else self._connected_region(),
            trusted=trusted,
            gso=self._best is None or self._best.full_size is not False,
            reason=reason,
        )
        said = self._chosen
        if said is None or (said.udp, said.relay_region, said.trusted, said.gso) != (
            path.udp,
            path.relay_region,
            path.trusted,
            path.gso,
        ):
            self._chosen = path
            self._link.events.append(path)

    def _use_relay(self, now: float) -> None:
        region = self.relay_region()
        if region is not None:
            self._link.use_relay(region, now)

    def _open_ways(self, now: float) -> list[Way]:
        """Where a ping may go now: the address in use, or, with none trusted, the relay and every candidate."""
        if self._best is not None and self.is_trusted(now):
            return [self._best.address]
        region = self._connected_region()
        addresses: list[Way] = [candidate.address for candidate in self._candidates]
        return addresses if region is None else [region, *addresses]

    def _connected_region(self) -> int | None:
        """The relay, once it is connected: what is sent there before is lost.

        Without a path the engine keeps the first packets, tells of the activity that makes us connect, and answers a
        first handshake where it came from.
        """
        region = self.relay_region()
        return region if region in self._link.relays_up else None

    def _heartbeat(self, now: float) -> None:
        if not self.is_active(now):
            self._heartbeat_at = self._searching_since = None
            return
        self._heartbeat_at = now + limits.HEARTBEAT_S
        if self._best is not None:
            self._heartbeat_sent_at = now
            size = self._sizes.heartbeat_size(self._best, now, trusted=self.is_trusted(now))
            self._send_ping(self._best.address, Purpose.HEARTBEAT, now, size=size)
            if self.is_trusted(now):
                round_trips_s = limits.HEARTBEAT_DOUBT_ROUND_TRIPS * (self._best.latency_s or 0.0)
                self._repeat_at = now + limits.HEARTBEAT_REPEAT_S
                self._doubt_at = now + max(limits.HEARTBEAT_DOUBT_S, round_trips_s)
        if self._discovery_due(now):
            self._discover(now)

    def _handle_unanswered_heartbeat(self, now: float) -> None:
        if self._repeat_at is not None and now >= self._repeat_at:
            self._repeat_at = None
            if self._best is not None:
                self._send_ping(self._best.address, Purpose.HEARTBEAT, now)
        if self._doubt_at is not None and now >= self._doubt_at:
            self._doubt_at = None
            self._trusted_until = min(self._trusted_until, now)
            if (other := self._answered_since(self._heartbeat_sent_at)) is not None:
                self._move_to(other, now, "answered while the path was silent")
                return
            self._choose(now, "a heartbeat went unanswered")
            if self.is_active(now) and self._discovery_due(now):
                self._discover(now)

    def _answered_since(self, since: float) -> Candidate | None:
        """The quickest address that gave a sign of life since then."""
        alive = [c for c in self._candidates if not c.unproven and c.pong_at is not None and c.pong_at > since]
        return min(alive, key=lambda candidate: candidate.latency_s or 0.0, default=None)

    def _move_to(self, candidate: Candidate, now: float, reason: str) -> None:
        self._trust(candidate, now, reason)
        self._sizes.forget()
        self._sizes.path_answered(candidate, None, now)

    def _trust(self, candidate: Candidate, now: float, reason: str) -> None:
        self._best = candidate
        self._searching_since = None
        self._trusted_until = now + limits.TRUST_S
        self._repeat_at = self._doubt_at = None
        self._choose(now, reason)

    def _discovery_due(self, now: float) -> bool:
        if not self.info.disco_key:
            return False
        if self._last_discovery_at is None:
            return True
        since_s = now - self._last_discovery_at
        if not self.is_trusted(now):
            return since_s >= limits.PING_SPACING_S
        best = self._best
        if best is not None and best.latency_s is not None and best.latency_s <= limits.GOOD_ENOUGH_LATENCY_S:
            return False
        return since_s >= limits.UPGRADE_SEARCH_S

    def _discover(self, now: float) -> None:
        self._last_discovery_at = now
        if self._searching_since is None and not self.is_trusted(now):
            self._searching_since = now
        self._ping_candidates(list(self._candidates), now)
        self.call_me_maybe.want(now)

    def _ping_candidates(self, candidates: list[Candidate], now: float) -> None:
        for candidate in candidates:
            if candidate.may_be_pinged(now):
                self._send_ping(candidate.address, Purpose.DISCOVERY, now)
                if candidate.unproven:
                    self._sizes.try_unproven(candidate, now)

    def _send_ping(
        self,
        address: AddrPort | None,
        purpose: Purpose,
        now: float,
        *,
        size: Size = Size.SMALL,
        request: int = 0,
        region: int = 0,
        padding_bytes: int = 0,
        lives_s: float = limits.PING_TIMEOUT_S,
    ) -> None:
        if not self.info.disco_key or self._link.node_key is None:
            return
        txid = self._link.rng.randbytes(disco.TXID_BYTES)
        message = disco.Ping(txid, self._link.node_key, padding_bytes if size is Size.SMALL else PADDING_BYTES)
        self._pings.add(PingInFlight(txid, purpose, now, now + lives_s, address, size, region, request))
        if address is None:
            self._link.send_relay(message, self.info.disco_key, self.info.key, region, now)
            return
        candidate = self._candidates.get(address)
        if purpose is not Purpose.SIZE and candidate is not None:
            candidate.pinged_at = now
        whole = size is Size.WHOLE or (size is Size.SMALL and (candidate is None or candidate.full_size is not False))
        self._link.send_udp(message, self.info.disco_key, address, whole=whole)

    def _note_pong(self, candidate: Candidate, ping: PingInFlight, latency_s: float, now: float) -> None:
        candidate.pong_at = now
        if ping.purpose is not Purpose.SIZE:
            candidate.latency_s = latency_s
        self._sizes.note_pong(candidate, ping, self._best, now)
        if candidate.unproven:
            return
        best = self._best
        if candidate is best:
            self._trust(candidate, now, "answered")
            self._sizes.path_answered(candidate, ping, now)
        elif best is None or not self.is_trusted(now) or self._beats(candidate, best):
            self._move_to(candidate, now, "answered first" if best is None else "a better address answered")

    def _beats(self, candidate: Candidate, best: Candidate) -> bool:
        if candidate.latency_s is None or best.latency_s is None:
            return False
        return is_better(PathQuality(candidate.address, candidate.latency_s), PathQuality(best.address, best.latency_s))

    def _hear_verdict(self, verdict: Verdict | None, now: float) -> None:
        """The end of a probe of the address in use."""
        best = self._best
        if verdict is None or best is None:
            return
        if verdict is Verdict.NOT_WHOLE:
            self._sizes.narrowed(best, best, now)
        elif self._connected_region() is not None:
            best.unproven, best.full_size = True, None
            self._best = None
        self._choose(now, verdict.value)

    def _should_avoid(self, candidate: Candidate) -> bool:
        """Whether the peer does better by the relay than by this address, and will not see it by itself."""
        narrow = candidate.unproven or candidate.full_size is False
        return narrow and not (self.info.cuts or self._peer_probes_size) and self._connected_region() is not None

    def _expire_pings(self, now: float) -> None:
        for ping in self._pings.expired(now):
            if ping.purpose in (Purpose.ASKED, Purpose.SIZE):
                continue
            if ping.address == self._best_address() and not self.is_trusted(now):
                self._best = None
                self._choose(now, "the address went silent")

    def _why_unanswered(self, asked: AskedPing) -> str:
        if not self.info.disco_key:
            return "this peer does not answer disco pings"
        region = self.relay_region()
        if self._relay_says_gone:
            return "the peer is not connected to its relay"
        if region is None:
            if asked.tried:
                return "the peer has told no relay, and does not answer by its addresses"
            return "the peer has told neither a relay nor an address"
        if asked.tried:
            return f"no answer within {asked.patience_s:g} s"
        return f"the peer's relay (region {region}) is not connected"

    def _why_relayed(self, now: float, own: OwnNetwork) -> str:
        if not self.info.disco_key:
            return "the peer cannot look for direct paths"
        if self._relay_says_gone:
            return "the peer is not connected to its relay"
        if not self.is_active(now):
            return "idle"
        if self._best is not None:
            return "the direct address stopped answering"
        if any(candidate.unproven for candidate in self._candidates):
            return "full-size packets do not pass by the direct address"
        called_at, since = self.call_me_maybe.sent_at, self._searching_since
        search = Search(
            relay_up=self._connected_region() is not None,
            addresses=len(self._candidates),
            public_addresses=sum(not is_private(candidate.address.address) for candidate in self._candidates),
            heard=any(
                candidate.heard_at is not None and since is not None and candidate.heard_at >= since
                for candidate in self._candidates
            ),
            peer_hard_nat=self.info.hard_nat,
            searching_s=None if since is None else now - since,
            called_s=None if called_at is None else now - called_at,
        )
        return why_searching(search, own)


def _relay_source(region: int) -> AddrPort:
    # Upstream tells the "address" of a relay as 127.3.3.40 with the region as the port.
    return AddrPort(IPv4Address("127.3.3.40"), region & 0xFFFF)
