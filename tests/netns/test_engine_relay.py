"""Two engines by our own relay alone, its certificate pinned as its DERP map says; every byte both ways."""

from __future__ import annotations

import sys

import pytest

from buri.testing.enginelab import SOURCES, counters, two_sides
from buri.testing.lab import Lab
from buri.testing.traffic import send_checked, start_sink

pytestmark = [pytest.mark.root, pytest.mark.engine, pytest.mark.slow]


def test_every_byte_passes_by_our_relay_and_a_new_one_takes_over(lab: Lab) -> None:
    host = lab.public_host("relay", number=9)
    words = [
        "relay",
        f"--state-dir={host.directory / 'state'}",
        f"--listen={host.address}:3340",
        f"--stun={host.address}:3478",
    ]

    def start_relay() -> str:
        process = host.start("relay", sys.executable, "-m", "buri.cli.main", *words, env={"PYTHONPATH": str(SOURCES)})
        return process.expect('"CertName": "(.*)"').group(1)

    pin = start_relay()
    one, two = two_sides(lab)
    relay = {"region": 9, "address": host.address, "port": 3340, "certificate": pin}
    way = {"udp": None, "relay": 9}
    first = one.start(one.config(two, way=dict(way), relay=relay))
    second = two.start(two.config(one, way=dict(way), relay=relay))
    for process in (first, second):
        process.expect(r"RelayUp\(region=9")
    for here, there, address in ((one, two, two.ipv4), (two, one, one.ipv6)):
        start_sink(there.host, address, 7000)
        send_checked(here.host, address, 7000, 20_000_000)
    host.processes[-1].kill()
    for process in (first, second):
        process.expect(r"RelayDown\(region=9")
    assert start_relay() == pin
    for process, side, other in ((first, one, two), (second, two, one)):
        seen = counters(process)
        assert seen["relay_rx_packets"] > 5000
        side.start(side.config(other, way=dict(way), relay=relay)).expect("RelayUp")
    send_checked(one.host, two.ipv4, 7000, 1_000_000)
