"""Paths in real namespaces: two `burid`, or one and a real `tailscaled`, behind NATs that do what NATs do."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import NamedTuple

import pytest

from buri.testing.lab import PRIVATE_SERVER, Home, Host, Lab, wait_until
from buri.testing.ourpeers import Burid
from buri.testing.realpeers import Tailscaled, TestControl, direct_line, start_derper
from buri.testing.traffic import block_udp, send_checked, start_sink

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.engine, pytest.mark.slow]

Node = Burid | Tailscaled


class Pair(NamedTuple):
    one: Node
    other: Node
    homes: list[Home]


def make_pair(lab: Lab, *, hard: tuple[bool, bool] = (False, False), one_home: bool = False, real: bool = True) -> Pair:
    """Two nodes in two homes (or one), the second a real `tailscaled` if wanted."""
    server = lab.public_host("server", number=1, private=PRIVATE_SERVER)
    _, derp_map = start_derper(server)
    control = TestControl(server, PRIVATE_SERVER, derp_map)
    homes = [lab.home("tokyo", hard=hard[0], server=server)]
    if not one_home:
        homes.append(lab.home("osaka", hard=hard[1], server=server))
    one = Burid(lab.home_host(homes[0], "alice"))
    host = lab.home_host(homes[-1], "bob")
    other: Node = Tailscaled(host) if real else Burid(host)
    one.up(control.url, "any-key")
    other.up(control.url, "any-key")
    return Pair(one, other, homes)


def test_one_lan_is_used_with_a_real_peer_though_the_router_has_no_hairpin(lab: Lab) -> None:
    pair = make_pair(lab, one_home=True)

    assert "via 192.168.1." in direct_line(pair.one.ping(pair.other.address(), count=20))
    assert "via 192.168.1." in direct_line(pair.other.ping(pair.one.address(), count=20))


def test_two_hard_nats_stay_on_the_relay_and_every_byte_passes(lab: Lab) -> None:
    pair = make_pair(lab, hard=(True, True))
    lines = pair.one.ping(pair.other.address(), until_direct=False, count=3)

    assert all("via DERP(lab)" in line for line in lines if line.startswith("pong")), lines
    carry(pair.one.host, pair.other)


def test_a_path_that_goes_silent_yields_to_the_relay_and_comes_back(lab: Lab) -> None:
    pair = make_pair(lab, real=False)
    direct_line(pair.one.ping(pair.other.address(), count=20))
    homes = (pair.homes[0], pair.homes[1])
    ping = pair.one.host.start("ping", "ping", "-D", "-i", "0.2", pair.other.address())
    ping.expect(r"icmp_seq=5 ")
    block_udp(homes, on=True)
    wait_until("the relay to carry", lambda: "via DERP" in pair.one.ping(pair.other.address(), until_direct=False)[0])
    here = len(ping.lines)
    ping.expect(r"icmp_seq=\d+ ", start=here)
    block_udp(homes, on=False)
    direct_line(pair.one.ping(pair.other.address(), count=20))
    ping.stop()

    times = [float(found[1]) for line in ping.lines if (found := re.match(r"\[([\d.]+)\].*icmp_seq", line))]
    silence_s = max(later - earlier for earlier, later in pairwise(times))
    assert silence_s < 8, f"silent for {silence_s:.1f} s"


def test_where_a_router_eats_long_packets_without_a_word_every_byte_still_passes(lab: Lab) -> None:
    pair = make_pair(lab, real=False)
    for home in pair.homes:
        home.router.nft(
            "table ip narrow {\n chain forward { type filter hook forward priority -200\n"
            " meta l4proto 17 meta length > 1300 drop\n }\n}\n"
        )
    direct_line(pair.one.ping(pair.other.address(), count=20))

    carry(pair.one.host, pair.other)
    carry(pair.other.host, pair.one)


def carry(sender: Host, receiver: Node, size_bytes: int = 1 << 20) -> None:
    """A mebibyte by TCP, every byte checked."""
    sink = start_sink(receiver.host, "0.0.0.0", 7000)
    try:
        send_checked(sender, receiver.address(), 7000, size_bytes)
    finally:
        sink.stop()
