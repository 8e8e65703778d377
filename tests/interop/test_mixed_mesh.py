"""Buri and real `tailscaled` on `buri server`: by our relay and direct, through restarts of everything of ours."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from buri.testing.lab import PRIVATE_SERVER, Home, Host, Lab, wait_until
from buri.testing.ourpeers import Burid, BuriServer
from buri.testing.realpeers import Tailscaled, direct_line
from buri.testing.traffic import block_udp, send_checked, start_sink

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.engine, pytest.mark.slow]

MEGABYTE = 1 << 20


@dataclass
class Mesh:
    lab: Lab
    server_host: Host
    server: BuriServer
    homes: tuple[Home, Home]
    real: Tailscaled
    ours: Burid


either = pytest.mark.parametrize("mesh", ["tun", "userspace"], indirect=True)


@pytest.fixture
def mesh(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Mesh]:
    with Lab(tmp_path / "lab") as lab:
        host = lab.public_host("server", number=1, private=PRIVATE_SERVER)
        server = BuriServer(host)
        homes = (lab.home("tokyo", server=host), lab.home("osaka", server=host))
        real = Tailscaled(lab.home_host(homes[0], "real"), userspace=getattr(request, "param", "tun") == "userspace")
        ours = Burid(lab.home_host(homes[1], "ours"))
        key = server.auth_key()
        real.up(server.url, key)
        ours.up(server.url, key)
        yield Mesh(lab, host, server, homes, real, ours)


def check_tcp(mesh: Mesh) -> None:
    """Bytes both ways by TCP; a userspace tailscaled hands what comes to the host's own loopback."""
    ours, real = mesh.ours, mesh.real
    sink = start_sink(real.host, "127.0.0.1" if real.userspace else real.address(), 7000)
    send_checked(ours.host, real.address(), 7000, 4 * MEGABYTE)
    sink.stop()
    sink = start_sink(ours.host, ours.address(), 7001)
    real.send_checked(ours.address(), 7001, 4 * MEGABYTE)
    sink.stop()
    if not real.userspace:
        sink = start_sink(ours.host, ours.address(6), 7002)
        send_checked(real.host, ours.address(6), 7002, MEGABYTE)
        sink.stop()


@either
def test_they_see_one_another_and_go_from_relay_to_direct(mesh: Mesh) -> None:
    assert mesh.real.status()["BackendState"] == "Running"
    assert " ours " in mesh.real.cli("status")
    assert " real " in mesh.ours.cli("status")
    assert direct_line(mesh.ours.ping(mesh.real.address()))
    assert direct_line(mesh.real.ping(mesh.ours.address()))
    assert "direct " in mesh.ours.cli("status")
    check_tcp(mesh)


@either
def test_pings_through_the_tunnel_are_answered_both_ways(mesh: Mesh) -> None:
    for pinger, other in ((mesh.real, mesh.ours), (mesh.ours, mesh.real)):
        for flag, kind in (("--tsmp", "TSMP"), ("--icmp", "ICMP")):
            said = pinger.cli("ping", flag, "-c=3", other.address())
            assert f"via {kind}" in said, (flag, said)


@either
def test_bytes_cross_by_our_relay_when_no_direct_path_can_be(mesh: Mesh) -> None:
    block_udp(mesh.homes, on=True)
    lines = mesh.ours.ping(mesh.real.address(), until_direct=False, count=3)
    assert any("via DERP(buri)" in line for line in lines), lines
    lines = mesh.real.ping(mesh.ours.address(), until_direct=False, count=3)
    assert any("via DERP(buri)" in line for line in lines), lines
    check_tcp(mesh)
    assert 'relay "buri"' in mesh.ours.cli("status")


def test_traffic_outlives_a_restart_of_server_and_relay(mesh: Mesh) -> None:
    assert direct_line(mesh.ours.ping(mesh.real.address()))
    mesh.server.process.kill()
    check_tcp(mesh)  # control and relay are gone, the direct path is not
    mesh.server.start()
    wait_until("both nodes back", lambda: all(node["online"] for node in mesh.server.nodes()), timeout_s=60)
    block_udp(mesh.homes, on=True)
    wait_until(
        "the relay to carry again",
        lambda: "via DERP" in "".join(mesh.ours.ping(mesh.real.address(), until_direct=False, count=1, check=False)),
        timeout_s=40,
    )
    check_tcp(mesh)


@pytest.mark.parametrize("relayed", [True, False], ids=["relayed", "direct"])
def test_one_connection_outlives_a_restart_of_server_and_relay(mesh: Mesh, relayed: bool) -> None:
    block_udp(mesh.homes, on=relayed)
    if not relayed:
        assert direct_line(mesh.ours.ping(mesh.real.address()))
    sink = start_sink(mesh.real.host, mesh.real.address(), 7000)
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(send_checked, mesh.ours.host, mesh.real.address(), 7000, 48 * MEGABYTE, timeout_s=90)
        wait_until("the connection to carry", lambda: carried(mesh) > 2 * MEGABYTE)
        assert not sent.done()
        mesh.server.process.kill()
        mesh.server.start()
        sent.result()
    sink.stop()


def carried(mesh: Mesh) -> int:
    (peer,) = mesh.ours.status()["Peer"].values()
    return int(peer["TxBytes"])


def test_our_node_comes_back_after_kill_9_with_its_address(mesh: Mesh) -> None:
    address = mesh.ours.address()
    mesh.ours.process.kill()
    mesh.ours.start()
    wait_until("Running", lambda: mesh.ours.status()["BackendState"] == "Running")
    assert mesh.ours.address() == address
    assert direct_line(mesh.ours.ping(mesh.real.address()))
    check_tcp(mesh)
