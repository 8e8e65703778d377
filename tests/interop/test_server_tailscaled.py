"""`buri server` and real `tailscaled`s, with Tailscale's own relay between them."""

from __future__ import annotations

import json
import re

import pytest

from buri.testing.lab import PRIVATE_SERVER, Host, Lab, peer, wait_until
from buri.testing.ourpeers import BuriServer
from buri.testing.realpeers import Tailscaled, direct_line, start_derper

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.slow]


def start_server(lab: Lab) -> tuple[Host, BuriServer]:
    host = lab.public_host("server", number=1, private=PRIVATE_SERVER)
    _, derp_map = start_derper(host)
    path = host.directory / "regions.json"
    path.write_text(json.dumps(derp_map))
    url = f"http://{PRIVATE_SERVER}:8080"
    return host, BuriServer(host, "--listen=0.0.0.0:8080", f"--url={url}", "--no-relay", f"--derp-map={path}", url=url)


def test_two_tailscaled_meet_on_buri_server(lab: Lab) -> None:
    host, server = start_server(lab)
    tokyo, osaka = lab.home("tokyo", server=host), lab.home("osaka", server=host)
    alice = Tailscaled(lab.home_host(tokyo, "alice"))
    bob = Tailscaled(lab.home_host(osaka, "bob"))
    key = server.auth_key()
    for node in (alice, bob):
        node.up(server.url, key)
    assert alice.status()["BackendState"] == "Running"
    assert "bob" in alice.cli("status")
    assert direct_line(alice.ping(bob.address()))
    assert direct_line(bob.ping(alice.address(6)))

    server.process.stop()
    bob.host.run("ping", "-c1", "-W2", alice.address())  # nobody needs the server to talk
    server.start()
    wait_until("both nodes back online", lambda: all(node["online"] for node in server.nodes()), timeout_s=40)

    alice.cli("logout")
    wait_until("bob to see alice leave", lambda: "alice" not in bob.cli("status") or "offline" in bob.cli("status"))


def test_a_login_without_a_key_waits_for_an_administrator(lab: Lab) -> None:
    host, server = start_server(lab)
    home = lab.home("tokyo", server=host)
    alice = Tailscaled(lab.home_host(home, "alice"))
    server.admin("users", "create", "alice")
    up = alice.host.start(
        "up", peer("tailscale"), f"--socket={alice.socket}", "up", f"--login-server={server.url}", "--timeout=60s"
    )
    code = up.expect(rf"{re.escape(server.url)}/register/(\S+)").group(1)
    page = alice.host.run(
        "python3", "-c", f"import urllib.request as u;print(u.urlopen('{server.url}/register/{code}').read())"
    )
    assert "alice" in page.stdout
    server.admin("nodes", "approve", code, "--user=alice")
    up.expect("Success")
    assert alice.status()["BackendState"] == "Running"


def test_tsp_discovers_registers_and_streams(lab: Lab) -> None:
    host, server = start_server(lab)
    client = lab.public_host("client", number=2)
    client.ip("route", "add", f"{PRIVATE_SERVER}/32", "via", host.address)
    key = client.directory / "auth-key"
    key.write_text(server.auth_key())
    node = client.directory / "node.json"

    def tsp(*words: str) -> str:
        return client.run(peer("tsp"), "-s", server.url, *words).stdout

    assert re.search(r"mkey:[0-9a-f]{64}", tsp("discover-server-key"))
    tsp("new-node", "-o", str(node))
    registered = json.loads(tsp("register", "-n", str(node), "-auth-key", str(key), "-hostname", "tsp"))
    assert registered["MachineAuthorized"]
    netmap = json.loads(tsp("map", "-n", str(node)))
    assert netmap["Node"]["Name"].endswith(".buri.internal.")
    assert netmap["Node"]["Addresses"][0].startswith("100.")
    assert netmap["Debug"]["DisableLogTail"]
    stream = client.start("map", peer("tsp"), "-s", server.url, "map", "-n", node, "-stream")
    stream.expect('"DERPMap"')
