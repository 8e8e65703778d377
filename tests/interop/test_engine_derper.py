"""Two engines by Tailscale's own relay alone: upgrade, greeting, packets, pins, and what happens when it goes."""

from __future__ import annotations

import hashlib
import signal
import ssl
from typing import Any

import pytest

from buri.testing.enginelab import Side, counters, two_sides
from buri.testing.lab import Host, Lab, wait_until
from buri.testing.realpeers import start_derper
from buri.testing.traffic import send_checked, start_sink

pytestmark = [pytest.mark.root, pytest.mark.engine, pytest.mark.interop, pytest.mark.slow]

REGION = 9
ASKED = """
import json, ssl, urllib.request
with urllib.request.urlopen("https://127.0.0.1:3340/debug/vars", context=ssl._create_unverified_context()) as answer:
    print(json.load(answer)["derp"]["got_ping"])
"""


def by_relay(side: Side, other: Side, relay: Host, **trust: Any) -> dict[str, Any]:
    """A configuration whose only path is the relay."""
    where = {"region": REGION, "address": relay.address, "port": 3340, **(trust or {"insecure": True})}
    return side.config(other, way={"udp": None, "relay": REGION}, relay=where)


def pin(relay: Host) -> str:
    """The relay's certificate as a DERP map pins it."""
    pem = (relay.directory / "derper" / f"{relay.address}.crt").read_text()
    return "sha256-raw:" + hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()


def test_every_byte_passes_by_derper_both_ways(lab: Lab) -> None:
    relay = lab.public_host("relay", number=9)
    derper, _ = start_derper(relay)
    one, two = two_sides(lab)
    first, second = one.start(by_relay(one, two, relay)), two.start(by_relay(two, one, relay))
    for process in (first, second):
        process.expect(rf"RelayUp\(region={REGION}")
    one.host.run("ping", "-c2", "-i0.2", "-W3", two.ipv4)
    first.expect(rf"RelayPeerSeen\(region={REGION}")
    for here, there, address in ((one, two, two.ipv4), (two, one, one.ipv6)):
        start_sink(there.host, address, 7000)
        send_checked(here.host, address, 7000, 5_000_000)
    derper.kill()
    first.expect(rf"RelayDown\(region={REGION}, reason='the relay closed the connection")
    seen = counters(second)
    assert seen["relay_rx_packets"] > 1000
    assert seen["relay_tx_packets"] > 1000


def test_a_peer_that_leaves_the_relay_is_told_gone(lab: Lab) -> None:
    relay = lab.public_host("relay", number=9)
    start_derper(relay)
    one, two = two_sides(lab)
    first, second = one.start(by_relay(one, two, relay)), two.start(by_relay(two, one, relay))
    second.expect("RelayUp")
    first.expect("RelayUp")
    one.host.run("ping", "-c1", "-W3", two.ipv4)
    second.stop()
    first.expect(r"RelayPeerGone\(.*was_here=True")


def test_a_quiet_relay_answers_when_asked_and_one_that_stopped_without_a_word_is_given_up(lab: Lab) -> None:
    relay = lab.public_host("relay", number=9)
    derper, _ = start_derper(relay)
    one, two = two_sides(lab)
    first = one.start(by_relay(one, two, relay))
    first.expect("RelayUp")
    wait_until("derper to be asked", lambda: relay.run("python3", "-c", ASKED).stdout.strip() != "0", timeout_s=40)
    derper.popen.send_signal(signal.SIGSTOP)  # its host still takes whatever is sent
    first.expect(rf"RelayDown\(region={REGION}, reason='the relay fell silent", timeout_s=60)
    assert len([line for line in first.lines if "RelayDown" in line]) == 1, "while it answered it was believed"


def test_a_pinned_relay_is_believed_and_another_certificate_is_not(lab: Lab) -> None:
    relay = lab.public_host("relay", number=9)
    start_derper(relay)
    one, two = two_sides(lab)
    first = one.start(by_relay(one, two, relay, certificate=pin(relay)))
    first.expect("RelayUp")
    second = two.start(by_relay(two, one, relay, certificate="sha256-raw:" + "0" * 64))
    second.expect("RelayDown.*certificate is not the expected one")


def test_a_certificate_that_no_root_signed_is_refused(lab: Lab) -> None:
    relay = lab.public_host("relay", number=9)
    start_derper(relay)
    one, two = two_sides(lab)
    process = one.start(by_relay(one, two, relay, insecure=False))
    process.expect("RelayDown.*certificate is not the expected one")


def test_a_web_server_is_told_apart_from_a_relay(lab: Lab) -> None:
    relay = lab.public_host("relay", number=9)
    relay.start("web", "python3", "-m", "http.server", "3340").expect("Serving HTTP")
    one, two = two_sides(lab)
    process = one.start(by_relay(one, two, relay, plain=True))
    process.expect("RelayDown.*is no relay.*404")
