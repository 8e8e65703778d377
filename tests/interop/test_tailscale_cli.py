"""Tailscale's own command line, unchanged, drives our LocalAPI (a fake node behind it, then a real one)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from buri.testing.fakenode import LOGIN_URL, WRONG_KEY, Served, serve
from buri.testing.lab import PRIVATE_SERVER, Host, Lab, peer
from buri.testing.ourpeers import Burid
from buri.testing.realpeers import TestControl, start_derper
from buri.wire.localapi import PingResult

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.slow]
SERVER = "--login-server=https://buri.example.com"


class CommandLine:
    """`tailscale --socket …` on a host of the lab."""

    def __init__(self, host: Host, served: Served) -> None:
        self.host = host
        self.served = served

    def run(self, *words: str, code: int = 0) -> str:
        """Run it; returns stdout, or stderr when it is meant to fail."""
        command: list[str | Path] = [peer("tailscale"), f"--socket={self.served.path}", *words]
        done = self.host.run(*command, check=False, timeout_s=30)
        assert done.returncode == code, f"{words} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout if code == 0 else done.stdout + done.stderr

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words))


@pytest.fixture
def running(lab: Lab, tmp_path: Path) -> Iterator[CommandLine]:
    with serve(tmp_path / "burid.sock", running=True) as served:
        yield CommandLine(lab.public_host("node", number=1), served)


@pytest.fixture
def logged_out(lab: Lab, tmp_path: Path) -> Iterator[CommandLine]:
    with serve(tmp_path / "burid.sock") as served:
        yield CommandLine(lab.public_host("node", number=1), served)


def test_it_reads_a_running_node(running: CommandLine) -> None:
    table = running.run("status")
    assert [line.split()[:4] for line in table.splitlines()] == [
        ["100.64.0.1", "tokyo", "alice@", "linux"],
        ["100.64.0.2", "osaka", "alice@", "linux"],
    ]
    assert 'active; relay "lab", tx 1234 rx 5678' in table
    assert running.json("status", "--json")["Self"]["DNSName"] == "tokyo.tail.example."
    assert running.run("ip").split() == ["100.64.0.1", "fd7a:115c:a1e0::1"]
    assert running.run("ip", "-4", "osaka").split() == ["100.64.0.2"]
    whois = running.run("whois", "100.64.0.2")
    assert "osaka.tail.example" in whois
    assert "alice@example.com" in whois
    assert "peer not found" in running.run("whois", "100.64.0.9", code=1)
    assert "Daemon: 0.1.0-fake" in running.run("version", "--daemon")
    assert "alice@example.com" in running.run("switch", "--list")


def test_it_pings(running: CommandLine) -> None:
    running.served.node.pings += [
        PingResult(
            node_ip="100.64.0.2", node_name="osaka", derp_region_id=9, derp_region_code="lab", latency_seconds=0.039
        ),
        PingResult(node_ip="100.64.0.2", node_name="osaka", endpoint="192.0.2.1:41641", latency_seconds=0.002),
    ]
    assert running.run("ping", "osaka").splitlines() == [
        "pong from osaka (100.64.0.2) via DERP(lab) in 39ms",
        "pong from osaka (100.64.0.2) via 192.0.2.1:41641 in 2ms",
    ]
    assert "is local Tailscale IP" in running.run("ping", "100.64.0.1")


def test_a_ping_without_an_answer_ends_with_an_error(running: CommandLine) -> None:
    assert "no reply" in running.run("ping", "-c=1", "--timeout=200ms", "100.64.0.2", code=1)


def test_it_finds_the_map_of_relays_for_its_netcheck(running: CommandLine) -> None:
    report = running.json("netcheck", "--format=json")
    assert report["UDP"] is False  # the map's relay does not exist; that the map was read is the point
    assert list(running.json("debug", "derp-map")["Regions"]) == ["9"]


def test_it_changes_preferences_and_goes_down_and_up(running: CommandLine) -> None:
    running.run("set", "--hostname=kyoto")
    assert running.run("get", "hostname").strip() == "kyoto"
    running.run("down")
    assert "stopped" in running.run("status", code=1)
    running.run("up")
    assert "tokyo" in running.run("status")
    assert "mentioning all" in running.run("up", "--accept-routes", SERVER, code=1)
    running.run("logout")
    assert "Logged out" in running.run("status", code=1)


def test_it_logs_in_with_an_auth_key(logged_out: CommandLine) -> None:
    assert "Logged out" in logged_out.run("status", code=1)
    logged_out.run("up", SERVER, "--auth-key=good-key", "--timeout=10s")
    assert "tokyo" in logged_out.run("status")
    assert "start good-key" in logged_out.served.node.asked


def test_it_tells_why_a_key_was_refused(logged_out: CommandLine) -> None:
    assert "refused the auth key" in logged_out.run("up", SERVER, f"--auth-key={WRONG_KEY}", code=1)


def test_it_shows_the_login_page_and_ends_once_a_person_said_yes(logged_out: CommandLine) -> None:
    command: list[str | Path] = [peer("tailscale"), f"--socket={logged_out.served.path}", "up", SERVER]
    up = logged_out.host.start("tailscale", *command)
    up.expect(LOGIN_URL)
    logged_out.served.call(logged_out.served.node.approve)
    up.expect("Success")
    assert up.popen.wait(10) == 0


@pytest.mark.engine
def test_it_reads_a_real_burid(lab: Lab) -> None:
    server = lab.public_host("server", number=1, private=PRIVATE_SERVER)
    _, derp_map = start_derper(server)
    control = TestControl(server, PRIVATE_SERVER, derp_map)
    home = lab.home("tokyo", server=server)
    alice, bob = (Burid(lab.home_host(home, name)) for name in ("alice", "bob"))
    for node in (alice, bob):
        node.up(control.url, "any-key")

    def tailscale(*words: str) -> str:
        return alice.host.run(peer("tailscale"), f"--socket={alice.socket}", *words).stdout

    rows = tailscale("status").partition("\n\n")[0]  # below: that this control server's clock stands at 2020
    assert [line.split()[1] for line in rows.splitlines()] == ["alice", "bob"]
    theirs, ours = json.loads(tailscale("status", "--json")), alice.status()
    assert theirs["Self"]["PublicKey"] == ours["Self"]["PublicKey"]
    assert list(theirs["Peer"]) == list(ours["Peer"]) == [bob.status()["Self"]["PublicKey"]]
    assert tailscale("ip", "-4").strip() == alice.address()
    assert f"pong from bob ({bob.address()}) via " in tailscale("ping", "bob")
    assert "Name:" in tailscale("whois", bob.address())
    assert json.loads(tailscale("netcheck", "--format=json"))["UDP"] is True
    assert json.loads(alice.cli("netcheck", "--format=json"))["UDP"] is True
    assert "Daemon:" in tailscale("version", "--daemon")
    tailscale("down")
    assert alice.code("status")[0] == 1
    tailscale("up")
    assert "bob" in alice.cli("status")
