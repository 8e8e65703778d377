"""Two nodes at home in the lab, on `buri server`, that talk directly while a test does things to their network."""

from __future__ import annotations

import json
import time

from buri.testing.badnetwork import wire
from buri.testing.lab import PRIVATE_SERVER, Host, Lab, wait_until
from buri.testing.longtraffic import Pings, Stream
from buri.testing.ourpeers import Burid, BuriRelay, BuriServer
from buri.testing.realpeers import Tailscaled, direct_line

RATE = "60mbit"
BACK_S = 15.0  # far above what is seen, and below what would be no recovery at all


class TalkingPair:
    """A TCP connection and pings go from `one` to `other`, each behind a NAT and a link of 60 Mbit/s."""

    def __init__(
        self,
        lab: Lab,
        kinds: tuple[type[Burid | Tailscaled], type[Burid | Tailscaled]],
        *,
        hard: bool = False,
        ipv6: bool = False,
        relays: tuple[BuriRelay, ...] = (),
    ) -> None:
        """`hard`: NATs that let no direct path be. `relays`: these, of a region each, in place of the server's own."""
        self.lab = lab
        host = lab.public_host("server", number=1, private=PRIVATE_SERVER)
        self.server = BuriServer(host, *(_with_relays(host, relays) if relays else ()))
        key = self.server.auth_key()
        tokyo, osaka = (lab.home(name, server=host, rate=RATE, hard=hard, ipv6=ipv6) for name in ("tokyo", "osaka"))
        self.homes = (tokyo, osaka)
        self.one = kinds[0](lab.home_host(tokyo, "alice", ipv6=ipv6))
        self.other = kinds[1](lab.home_host(osaka, "bob", ipv6=ipv6))
        for node in (self.one, self.other):
            wire(node.host)
            node.up(self.server.url, key)
        if not hard:
            direct_line(self.one.ping(self.other.address(), count=20))
        self.stream = Stream(self.one.host, self.other.host, self.other.address())
        self.pings = Pings(self.one.host, self.other.address())

    def back(self, what: str, since: float) -> str:
        """Wait until traffic is back, on the same connection; returns the sentence that tells how long it took."""
        back_s = self.pings.back_after_s(since)
        self.stream.expect_flow(timeout_s=60)
        tcp_s = time.time() - since
        rate = self.stream.measure(3)
        silence_s = self.pings.longest_silence_s(since)
        assert back_s < BACK_S, f"{what}: nothing came back for {back_s:.1f} s"
        return (
            f"\n{what}: pings back after {back_s:.1f} s, TCP within {tcp_s:.1f} s, longest silence {silence_s:.1f} s, "
            f"{rate:.0f} Mbit/s then"
        )

    def is_direct(self) -> bool:
        """Whether the sender sends directly."""
        return "direct " in self.one.cli("status")

    def expect_direct(self, timeout_s: float = 40) -> None:
        """Wait until it does."""
        wait_until("a direct path", self.is_direct, timeout_s=timeout_s)


def _with_relays(host: Host, relays: tuple[BuriRelay, ...]) -> tuple[str, ...]:
    """The server's flags for relays that are not its own."""
    regions = {}
    for number, relay in enumerate(relays, start=1):
        region = next(iter(relay.derp_map()["Regions"].values()))
        nodes = [{**node, "RegionID": number} for node in region["Nodes"]]
        code = relay.host.name
        regions[str(number)] = {**region, "RegionID": number, "RegionCode": code, "RegionName": code, "Nodes": nodes}
    path = host.directory / "relays.json"
    path.write_text(json.dumps({"Regions": regions}))
    return ("--listen=0.0.0.0:8080", f"--url=http://{PRIVATE_SERVER}:8080", "--no-relay", f"--derp-map={path}")
