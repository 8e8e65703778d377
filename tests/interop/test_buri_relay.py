"""`buri relay` judged by Tailscale's own tools, and two engines that reach each other by nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trustme

from buri.testing.enginelab import Side, counters, two_sides
from buri.testing.lab import PRIVATE_SERVER, Lab, peer, wait_until
from buri.testing.ourpeers import BuriRelay
from buri.testing.realpeers import Tailscaled, TestControl
from buri.testing.traffic import send_checked, start_sink

pytestmark = [pytest.mark.root, pytest.mark.engine, pytest.mark.interop, pytest.mark.slow]

REGION = BuriRelay.REGION


def by_relay(side: Side, other: Side, relay: BuriRelay) -> dict[str, Any]:
    """A configuration whose only path is the relay, trusted by its pin alone."""
    return side.config(other, way={"udp": None, "relay": REGION}, relay=relay.trust())


def test_stunc_hears_its_address_at_every_address_of_the_host(lab: Lab) -> None:
    host = lab.public_host("relay", number=9, private=PRIVATE_SERVER)
    client = lab.public_host("client", number=2)
    client.ip("route", "add", f"{PRIVATE_SERVER}/32", "via", host.address)
    relay = BuriRelay(host)
    for address in (host.address, PRIVATE_SERVER, "2001:db8::9"):
        for port in (3478, 3479):
            said = client.run(peer("stunc"), address, str(port))
            expected = "2001:db8::2" if ":" in address else client.address
            assert expected in said.stdout + said.stderr
    assert relay.figure("buri_stun_answered_total") == 6


def test_derpprobe_finds_it_healthy(lab: Lab) -> None:
    host = lab.public_host("relay", number=9)
    prober = lab.public_host("prober", number=2)
    name = "relay.example"
    prober.run("sh", "-c", f"printf '%s {name}\\n' {host.address} 2001:db8::9 >> /etc/hosts")
    authority = trustme.CA()
    issued = authority.issue_cert(name)
    (host.directory / "root.pem").write_bytes(authority.cert_pem.bytes())
    (host.directory / "chain.pem").write_bytes(issued.cert_chain_pems[0].bytes())
    (host.directory / "key.pem").write_bytes(issued.private_key_pem.bytes())
    relay = BuriRelay(
        host,
        f"--tls-cert={host.directory / 'chain.pem'}",
        f"--tls-key={host.directory / 'key.pem'}",
        hostname=name,
    )
    derp_map = relay.derp_map()
    # derpprobe knows no node that is STUN alone, and wants both families by number.
    nodes = derp_map["Regions"][str(REGION)]["Nodes"]
    del nodes[1:]
    nodes[0] |= {"IPv4": host.address, "IPv6": "2001:db8::9"}
    path = prober.directory / "map.json"
    path.write_text(json.dumps(derp_map))
    done = prober.run(
        peer("derpprobe"),
        "-once",
        "-spread=false",
        f"-derp-map=file://{path}",
        "-bw-interval=1s",
        "-bw-probe-size-bytes=1000000",
        check=False,
        timeout_s=90,
        env={"SSL_CERT_FILE": str(host.directory / "root.pem")},
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "bad" not in [line.split(":")[0] for line in said.splitlines()], said
    assert relay.process.stop() == 0


def test_every_byte_passes_by_our_relay_both_ways(lab: Lab) -> None:
    host = lab.public_host("relay", number=9)
    relay = BuriRelay(host)
    one, two = two_sides(lab)
    first, second = one.start(by_relay(one, two, relay)), two.start(by_relay(two, one, relay))
    for process in (first, second):
        process.expect(rf"RelayUp\(region={REGION}")
    one.host.run("ping", "-c2", "-i0.2", "-W3", two.ipv4)
    for here, there, address in ((one, two, two.ipv4), (two, one, one.ipv6)):
        start_sink(there.host, address, 7000)
        send_checked(here.host, address, 7000, 5_000_000)
    assert relay.figure("derp_curr_connections") == 2
    assert relay.figure("derp_packets_sent_total") > 2000
    assert counters(second)["relay_rx_packets"] > 1000
    first.expect(rf"RelayPeerGone\(region={REGION}")


def test_a_relay_that_comes_back_has_kept_key_and_certificate(lab: Lab) -> None:
    host = lab.public_host("relay", number=9)
    relay = BuriRelay(host)
    one, two = two_sides(lab)
    first = one.start(by_relay(one, two, relay))
    up = first.expect(rf"RelayUp\(region={REGION}.*").group(0)
    assert relay.process.stop() == 0
    first.expect(rf"RelayDown\(region={REGION}")
    before = relay.derp_map()
    relay.start()
    assert relay.derp_map() == before
    second = two.start(by_relay(two, one, relay))
    assert second.expect(rf"RelayUp\(region={REGION}.*").group(0) == up


def test_two_tailscaled_behind_hard_nats_talk_by_our_relay_alone(lab: Lab) -> None:
    server = lab.public_host("server", number=1, private=PRIVATE_SERVER)
    host = lab.public_host("relay", number=9)
    relay = BuriRelay(host)
    control = TestControl(server, PRIVATE_SERVER, relay.derp_map())
    tokyo, osaka = (lab.home(name, server=server, hard=True) for name in ("tokyo", "osaka"))
    alice, bob = Tailscaled(lab.home_host(tokyo, "alice")), Tailscaled(lab.home_host(osaka, "bob"))
    for node in (alice, bob):
        node.up(control.url, "any")
    for here, there in ((alice, bob), (bob, alice)):
        said = here.ping(there.address(), until_direct=False, count=3)
        assert all(f"via DERP(buri-{REGION})" in line for line in said if line.startswith("pong")), said
        assert any(line.startswith("pong") for line in said), said
    alice.host.run("ping", "-c3", "-i0.2", "-W3", bob.address())
    netcheck = alice.cli("netcheck")
    assert "UDP: true" in netcheck
    assert f"Nearest DERP: Buri relay {host.address}" in netcheck
    assert relay.figure("derp_curr_home_connections") == 2
    bob.process.stop()
    wait_until("the relay to miss bob", lambda: relay.figure("derp_curr_connections") == 1)
