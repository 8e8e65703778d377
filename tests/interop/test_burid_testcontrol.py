"""`burid` on Tailscale's own control server for tests, talking to a real `tailscaled`."""

from __future__ import annotations

import json
import random
import sys
from typing import Any, NamedTuple

import pytest

from buri.testing.lab import PRIVATE_SERVER, Host, Lab, wait_until
from buri.testing.ourpeers import Burid
from buri.testing.realpeers import Tailscaled, TestControl, direct_line, start_derper
from buri.testing.traffic import block_udp, send_checked, start_sink

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.engine, pytest.mark.slow]


class World(NamedTuple):
    """A control server, a relay, a `burid` in one home and a `tailscaled` in another, both Running."""

    server: Host
    control: TestControl
    ours: Burid
    theirs: Tailscaled


def state_of(node: Burid) -> str:
    return str(node.status()["BackendState"])


def await_state(node: Burid, state: str) -> None:
    wait_until(f"{node.host.name} to be {state}", lambda: state_of(node) == state)


def peers_of(node: Burid) -> dict[str, dict[str, Any]]:
    """The peers `status` shows, by host name."""
    return {peer["HostName"]: peer for peer in (node.status()["Peer"] or {}).values()}


def key_of(node: Burid) -> str:
    return str(node.status()["Self"]["PublicKey"])


@pytest.fixture
def world(lab: Lab) -> World:
    server = lab.public_host("server", number=1, private=PRIVATE_SERVER)
    _, derp_map = start_derper(server)
    control = TestControl(server, PRIVATE_SERVER, derp_map)
    tokyo, osaka = lab.home("tokyo", server=server), lab.home("osaka", server=server)
    ours = Burid(lab.home_host(tokyo, "alice"))
    theirs = Tailscaled(lab.home_host(osaka, "bob"))
    ours.up(control.url, "any-key")
    theirs.up(control.url, "any-key")
    return World(server, control, ours, theirs)


def both_ways(world: World, size_bytes: int = 1 << 20) -> None:
    """TCP from each to the other, every byte checked."""
    for sender, receiver, address in (
        (world.ours.host, world.theirs.host, world.theirs.address()),
        (world.theirs.host, world.ours.host, world.ours.address()),
    ):
        sink = start_sink(receiver, "0.0.0.0", 7000)
        try:
            send_checked(sender, address, 7000, size_bytes)
        finally:
            sink.stop()


def test_by_derper_then_direct_both_ways(lab: Lab, world: World) -> None:
    homes = (lab.homes[0], lab.homes[1])
    block_udp(homes, on=True)
    assert "via DERP(lab)" in "\n".join(world.ours.ping(world.theirs.address(), until_direct=False, count=1))
    assert "via DERP(lab)" in "\n".join(world.theirs.ping(world.ours.address(), until_direct=False, count=1))
    both_ways(world)
    block_udp(homes, on=False)
    assert direct_line(world.ours.ping(world.theirs.address(), count=20))
    assert direct_line(world.theirs.ping(world.ours.address(), count=20))
    both_ways(world)


def test_a_restart_while_control_is_away_goes_on_with_the_kept_netmap(world: World) -> None:
    assert direct_line(world.ours.ping(world.theirs.address(), count=20))
    wait_until("the netmap to be kept", (world.ours.state / "netmap.json").exists)
    world.control.process.kill()
    both_ways(world)
    world.ours.process.kill()
    world.ours.start()
    await_state(world.ours, "Running")
    both_ways(world)


def test_logout_leaves_the_tailnet_and_nothing_behind(world: World) -> None:
    address = world.ours.address()
    assert "100.64.0.0/10" not in world.ours.host.run("ip", "-4", "route", "show", "table", "all").stdout
    world.ours.cli("logout")
    await_state(world.ours, "NeedsLogin")
    assert address not in world.ours.host.run("ip", "address").stdout
    world.ours.up(world.control.url, "any-key")
    assert world.ours.ping(world.theirs.address(), until_direct=False, count=3)


def test_an_expiry_pushed_by_the_server_stops_the_node_and_its_end_starts_it_again(world: World) -> None:
    key = key_of(world.ours)
    (node,) = (node for node in world.control.nodes() if node["Key"] == key)
    # By the server's clock, which for testcontrol stands at 2020-08-03: its own POST /expire names a time of today.
    expired = {"Node": {**node, "KeyExpiry": "2020-08-02T00:00:00Z"}}
    world.control.call("POST", f"/map?key={key}", json.dumps(expired))
    await_state(world.ours, "NeedsLogin")
    world.control.call("POST", f"/map?key={key}", json.dumps({"Node": node}))
    await_state(world.ours, "Running")


def test_a_netmap_delta_of_every_kind_shows_in_status(world: World) -> None:
    key = key_of(world.ours)

    def push(message: dict[str, Any]) -> None:
        world.control.call("POST", f"/map?key={key}", json.dumps(message))

    def peer(**more: Any) -> dict[str, Any]:
        return {
            "ID": 77,
            "StableID": "n77",
            "Name": "carol.tailnet.test.",
            "User": 123,
            "Key": "nodekey:" + "77" * 32,
            "DiscoKey": "discokey:" + "77" * 32,
            "Addresses": ["100.64.0.77/32"],
            "AllowedIPs": ["100.64.0.77/32"],
            "Hostinfo": {"Hostname": "carol", "OS": "linux"},
            "MachineAuthorized": True,
            **more,
        }

    def carol(name: str, value: Any) -> None:
        wait_until(f"carol's {name} to be {value}", lambda: peers_of(world.ours).get("carol", {}).get(name) == value)

    push({"PeersChanged": [peer(HomeDERP=9)]})
    carol("Relay", "lab")
    assert "100.64.0.77" in world.ours.host.run("ip", "route", "show", "table", "5282").stdout
    push({"OnlineChange": {"77": True}})
    carol("Online", True)
    push({"PeersChangedPatch": [{"NodeID": 77, "Online": False}]})
    carol("Online", False)
    push({"PeersChangedPatch": [{"NodeID": 77, "Key": "nodekey:" + "78" * 32}]})
    carol("PublicKey", "nodekey:" + "78" * 32)
    push({"PeerSeenChange": {"77": True}})
    wait_until("carol to be seen", lambda: peers_of(world.ours)["carol"].get("LastSeen", "").startswith("20"))
    push({"PeersChanged": [peer(Hostinfo={"Hostname": "carol", "OS": "plan9"})]})
    carol("OS", "plan9")
    push({"UserProfiles": [{"ID": 99, "LoginName": "carol@example.com", "DisplayName": "Carol"}]})
    wait_until("the user to be known", lambda: "99" in (world.ours.status()["User"] or {}))
    push({"Domain": "other.test", "Health": ["the moon is full"]})
    wait_until("the word on health", lambda: "the moon is full" in "\n".join(world.ours.status()["Health"] or []))
    regions = json.loads(world.ours.cli("debug", "derp-map"))["Regions"]
    ten = regions["9"] | {"RegionID": 10, "RegionCode": "ten", "Nodes": [regions["9"]["Nodes"][0] | {"RegionID": 10}]}
    push({"DERPMap": {"Regions": regions | {"10": ten}}})
    push({"PeersChangedPatch": [{"NodeID": 77, "DERPRegion": 10}]})
    carol("Relay", "ten")
    push({"PeersChangedPatch": [{"NodeID": 77, "KeyExpiry": "2001-02-03T04:05:06Z"}]})
    carol("Expired", True)
    dave = peer(ID=78, StableID="n78", Name="dave.tailnet.test.", Key="nodekey:" + "88" * 32)
    both = ["100.64.0.78/32", "fd7a:115c:a1e0::78/128"]
    dave |= {"Addresses": both, "AllowedIPs": both}
    push({"PeersChanged": [dave | {"Hostinfo": {"Hostname": "dave"}}]})
    wait_until("dave to come", lambda: "dave" in peers_of(world.ours))
    assert "fd7a:115c:a1e0::78" in world.ours.host.run("ip", "-6", "route", "show", "table", "5282").stdout
    theirs = next(node for node in world.control.nodes() if node["Key"] == world.theirs.status()["Self"]["PublicKey"])
    push({"Peers": [theirs, peer(HomeDERP=9)]})
    wait_until("the whole list to be taken", lambda: sorted(peers_of(world.ours)) == ["bob", "carol"])
    mine = next(node for node in world.control.nodes() if node["Key"] == key)
    push({"Node": mine | {"Name": "renamed.tailnet.test."}})
    wait_until("our own name", lambda: world.ours.status()["Self"]["DNSName"] == "renamed.tailnet.test.")
    push({"PeersRemoved": [77]})
    wait_until("carol to be gone", lambda: "carol" not in peers_of(world.ours))
    assert "100.64.0.77" not in world.ours.host.run("ip", "route", "show", "table", "5282").stdout
    push({"PacketFilters": {"*": None, "base": []}})
    sink = start_sink(world.ours.host, "0.0.0.0", 7100)
    done = world.theirs.host.run(
        sys.executable,
        "-c",
        "import socket,sys; socket.create_connection((sys.argv[1], 7100), timeout=3)",
        world.ours.address(),
        check=False,
    )
    sink.stop()
    assert done.returncode != 0, "an empty packet filter lets nobody in"
    assert world.ours.ping(world.theirs.address(), until_direct=False, count=3)


def test_three_thousand_peers_at_once_and_traffic_goes_on(world: World) -> None:
    assert direct_line(world.ours.ping(world.theirs.address(), count=20))
    dice = random.Random(7)  # keys that zstd cannot make small: the stream must carry far more than a window
    peers = [
        {
            "ID": 1000 + number,
            "Name": f"p{number}.tailnet.test.",
            "Key": "nodekey:" + dice.randbytes(32).hex(),
            "DiscoKey": "discokey:" + dice.randbytes(32).hex(),
            "Addresses": [f"100.70.{number // 250}.{number % 250 + 1}/32"],
            "HomeDERP": 9,
            "Hostinfo": {"Hostname": f"p{number}"},
        }
        for number in range(3000)
    ]
    world.control.call("POST", f"/map?key={key_of(world.ours)}", json.dumps({"PeersChanged": peers}))
    wait_until("all peers to be there", lambda: len(peers_of(world.ours)) >= 3000)
    both_ways(world)


def test_pings_the_server_asks_for_are_answered(world: World) -> None:
    web = world.server.start("web", sys.executable, "-u", "-m", "http.server", "9000")
    key = key_of(world.ours)
    url = f"http://{PRIVATE_SERVER}:9000/ping-1"
    wait_until("the web server", lambda: world.server.run("ss", "-ltn").stdout.find(":9000") > 0)
    world.control.call("POST", f"/ping?key={key}", json.dumps({"URL": url, "Log": True}))
    web.expect(r'"HEAD /ping-1 ')
    ask = {"URL": f"http://{PRIVATE_SERVER}:9000/ping-2", "Types": "disco", "IP": world.theirs.address()}
    world.control.call("POST", f"/ping?key={key}", json.dumps(ask))
    web.expect(r'"POST /ping-2 ')
    ask = {"URL": f"http://{PRIVATE_SERVER}:9000/ping-3", "Types": "TSMP,ICMP", "IP": world.theirs.address()}
    world.control.call("POST", f"/ping?key={key}", json.dumps(ask))
    web.expect(r'"POST /ping-3 ')


def test_a_spent_or_wrong_auth_key_and_a_server_that_is_not_one(lab: Lab) -> None:
    server = lab.public_host("server", number=1, private=PRIVATE_SERVER)
    _, derp_map = start_derper(server)
    control = TestControl(server, PRIVATE_SERVER, derp_map, "-require-auth-key=right")
    home = lab.home("tokyo", server=server)
    ours = Burid(lab.home_host(home, "alice"))
    code, said = ours.code("up", f"--login-server={control.url}", "--auth-key=wrong", "--timeout=20s")
    assert code == 1
    assert "invalid" in said.lower() or "key" in said.lower()
    server.start("web", sys.executable, "-u", "-m", "http.server", "9000")
    wait_until("the web server", lambda: server.run("ss", "-ltn").stdout.find(":9000") > 0)
    stranger = f"http://{PRIVATE_SERVER}:9000"
    code, said = ours.code("up", f"--login-server={stranger}", "--auth-key=right", "--timeout=20s", "--reset")
    assert code == 1
    assert "is not a control server" in said
    assert "100.64." not in ours.host.run("ip", "address").stdout
    ours.up(control.url, "right", "--reset")


def test_an_interactive_login_shows_a_page_and_ends_by_itself(lab: Lab) -> None:
    server = lab.public_host("server", number=1, private=PRIVATE_SERVER)
    _, derp_map = start_derper(server)
    control = TestControl(server, PRIVATE_SERVER, derp_map, "-require-auth")
    ours = Burid(lab.home_host(lab.home("tokyo", server=server), "alice"))
    from buri.testing.ourpeers import ENVIRONMENT, PROGRAMS

    words = [*PROGRAMS["buri"], f"--socket={ours.socket}", "up", f"--login-server={control.url}", "--timeout=40s"]
    up = ours.host.start("up", *words, env=ENVIRONMENT)
    url = up.expect(r"(http://\S+/auth/\S+)").group(1)
    control.call("POST", f"/authpath?url={url}")
    await_state(ours, "Running")
    up.popen.wait(20)
    assert up.popen.returncode == 0
