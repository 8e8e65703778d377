"""Who floods a node or a relay, or claims another's address: bounded memory and work, nothing let through, others go on.

Rates depend on who else uses the machine (the flooder itself does): they are printed, beside what they were a moment before.
What is asserted counts what was done, not how fast.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from typing import NamedTuple

import pytest

from buri.core.keys import NodePrivate
from buri.testing import benchload
from buri.testing.enginelab import Side, counters, two_sides
from buri.testing.lab import PRIVATE_SERVER, Host, Lab, LabError, Process
from buri.testing.ourpeers import Burid, BuriRelay, BuriServer
from buri.testing.realpeers import direct_line
from buri.testing.traffic import send_checked, start_sink

pytestmark = [pytest.mark.root, pytest.mark.engine, pytest.mark.slow]

FLOODER = Path(benchload.__file__).with_name("flooder.py")
SOURCES = Path(benchload.__file__).resolve().parents[2]
NODE_PORT = 41641
PER_SECOND = 20_000
GROWTH_MB = 40
"""Much more than any table or queue may hold, much less than a second of an unbounded flood."""

CHECKED_BYTES = 2_000_000
STRANGERS_A_SECOND = 500
"""Disco and STUN of strangers that reach Python (rust/engine/src/shell/callers.rs)."""

UNDER_LOAD_A_SECOND = 200
"""Initiations a second that are looked into before a cookie is asked for."""


class Rate(NamedTuple):
    """Thousands of datagrams a second from one honest peer to the other, of 100 Mbit/s offered."""

    before: float
    during: float

    def __str__(self) -> str:
        return f"{self.before:.2f} -> {self.during:.2f} kpps ({self.during / max(self.before, 0.001):.0%})"


def measure(one: Host, two: Host, address: str) -> float:
    if which("iperf3") is None:
        return 0.0
    return benchload.udp(one, two, address, seconds=2, size_bytes=1200, rate="100M")


@contextmanager
def flood(
    evil: Host, kind: str, address: str, port: int, *more: str, per_second: int = PER_SECOND
) -> Iterator[Process]:
    words = (kind, address, str(port), str(per_second), *more)
    process = evil.start(f"flood-{kind}", sys.executable, FLOODER, *words, env={"PYTHONPATH": str(SOURCES)})
    process.expect("^flooding$")
    try:
        yield process
    finally:
        process.stop()


def sent(process: Process) -> int:
    return int(process.expect(r"^sent (\d+)$").group(1))


def test_floods_at_a_node_reach_neither_python_nor_its_peers(lab: Lab) -> None:
    host = lab.public_host("server", number=9, private=PRIVATE_SERVER)
    one, two, evil = (lab.public_host(name, number=number) for number, name in enumerate(("one", "two", "evil"), 1))
    for each in (one, two):
        each.ip("route", "add", f"{PRIVATE_SERVER}/32", "via", host.address)
    server = BuriServer(host)
    key = server.auth_key()
    honest, victim = Burid(one), Burid(two)
    for node in (honest, victim):
        node.up(server.url, key)
    address = victim.address()
    assert direct_line(honest.ping(address))
    start_sink(two, address, 7000)
    node_key = victim.status()["Self"]["PublicKey"].removeprefix("nodekey:")
    for kind in ("initiations", "spoofed", "disco", "stun"):
        rate_before = measure(one, two, address)
        figures, memory_mb = victim.figures(), benchload.rss_mb(victim.process)
        cpu_s, began = benchload.pid_cpu_s(victim.process.popen.pid), time.monotonic()
        with flood(evil, kind, two.address, NODE_PORT, node_key) as process:
            rate = Rate(rate_before, measure(one, two, address))
            for _ in range(3):
                send_checked(one, address, 7000, CHECKED_BYTES)
        took_s = time.monotonic() - began
        grown_mb = benchload.rss_mb(victim.process) - memory_mb
        cpu_s = (benchload.pid_cpu_s(victim.process.popen.pid) - cpu_s) / took_s
        now = victim.figures()
        done = {name: now[name] - figures.get(name, 0) for name in now}
        print(
            f"{kind}: {sent(process)} datagrams in {took_s:.1f} s, {grown_mb:+.1f} MB, {cpu_s:.2f} of a core, honest {rate}"
        )
        assert grown_mb < GROWTH_MB
        assert done["engine_handshakes_done"] <= 4
        if kind in ("initiations", "spoofed"):
            assert done["engine_wireguard_cookies_sent"] > 0
            # Cookies for made-up neighbours wait in the kernel for an answer to ARP: they may not fill the socket's buffer.
            assert done["engine_drop_out_congested"] == 0
            assert done["engine_drop_wireguard_bad_handshake"] <= UNDER_LOAD_A_SECOND * (took_s + 2)
        else:
            heard = done[f"engine_{kind}_rx"] - done["engine_drop_in_callers"]
            assert done["engine_drop_in_callers"] > 0
            assert heard <= STRANGERS_A_SECOND * (took_s + 2)
        assert direct_line(honest.ping(address))


def test_floods_at_a_relay_leave_the_others_their_way_and_the_relay_its_memory(lab: Lab) -> None:
    host, evil = lab.public_host("relay", number=9), lab.public_host("evil", number=3)
    relay = BuriRelay(host, f"--stun={host.address}:3478")
    one, two = two_sides(lab)
    way = {"udp": None, "relay": BuriRelay.REGION}
    for side, other in ((one, two), (two, one)):
        side.start(side.config(other, way=dict(way), relay=relay.trust())).expect("RelayUp")
    start_sink(two.host, two.ipv4, 7000)
    send_checked(one.host, two.ipv4, 7000, CHECKED_BYTES)
    key = two.private.public().raw.hex()
    for kind, port in (("frames", 443), ("nobody", 443), ("stun", 3478)):
        rate_before = measure(one.host, two.host, two.ipv4)
        memory_mb, slowed = benchload.rss_mb(relay.process), relay.figure("derp_clients_slowed_total")
        cpu_s, began = benchload.pid_cpu_s(relay.process.popen.pid), time.monotonic()
        with flood(evil, kind, host.address, port, key) as process:
            rate = Rate(rate_before, measure(one.host, two.host, two.ipv4))
            send_checked(one.host, two.ipv4, 7000, CHECKED_BYTES)
            grown_mb = benchload.rss_mb(relay.process) - memory_mb
        took_s = time.monotonic() - began
        cpu_s = (benchload.pid_cpu_s(relay.process.popen.pid) - cpu_s) / took_s
        print(f"{kind}: {sent(process)} in {took_s:.1f} s, {grown_mb:+.1f} MB, {cpu_s:.2f} of a core, honest {rate}")
        assert grown_mb < GROWTH_MB
        if kind != "stun":
            assert relay.figure("derp_clients_slowed_total") > slowed


_LISTEN = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 9000))
print("ready", flush=True)
while True:
    data, source = s.recvfrom(100)
    print("got", data.decode(), source[0], flush=True)
"""
_SAY = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 0))
for number in range(int(sys.argv[4])):
    s.sendto(sys.argv[3].encode(), (sys.argv[2], 9000))
"""


def test_packets_from_an_address_that_their_sender_does_not_own_end_at_the_door(lab: Lab) -> None:
    one, two = two_sides(lab)
    evil = Side(lab.public_host("evil", number=3), NodePrivate.from_entropy(bytes([3] * 32)), 3)
    config = two.config(one)
    config["peers"].append(
        {"key": evil.private.public().raw.hex(), "allowed": evil.allowed, "udp": f"{evil.host.address}:{NODE_PORT}"}
    )
    victim = two.start(config)
    evil.start(evil.config(two))
    evil.host.ip("addr", "add", f"{one.ipv4}/32", "dev", f"io{evil.number}")
    listener = two.host.start("listener", sys.executable, "-c", _LISTEN, two.ipv4)
    listener.expect("ready")

    def say(source: str, words: str, times: int) -> None:
        evil.host.run(sys.executable, "-c", _SAY, source, two.ipv4, words, str(times))

    say(evil.ipv4, "before", 1)
    listener.expect(f"got before {evil.ipv4}")
    say(one.ipv4, "forged", 200)
    say(evil.ipv4, "after", 1)
    listener.expect(f"got after {evil.ipv4}")
    with pytest.raises(LabError):
        evil.host.run("ping", "-c3", "-i0.2", "-W1", "-I", one.ipv4, two.ipv4)
    assert not any("forged" in line for line in listener.lines)
    seen = counters(victim)
    assert seen["drop_in_wrong_source"] >= 203
