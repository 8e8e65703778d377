"""What a control server may say and do that it never should: a node says one sentence, and its traffic goes on."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from buri.machine.mapframes import zstd
from buri.testing.badcontrol import BadControlServer
from buri.testing.lab import PRIVATE_SERVER, Lab, Process, wait_until
from buri.testing.ourpeers import ENVIRONMENT, Burid, BuriRelay, BuriServer
from buri.testing.realpeers import direct_line
from buri.testing.traffic import Talk, block_udp

pytestmark = [pytest.mark.root, pytest.mark.engine, pytest.mark.slow]

URL = f"http://{PRIVATE_SERVER}:8080"


class World(NamedTuple):
    """A bad control server, a good relay, and two nodes that talk to each other all the while."""

    control: BadControlServer
    alice: Burid
    bob: Burid
    talk: Talk


@pytest.fixture
def world(lab: Lab) -> Iterator[World]:
    relay = BuriRelay(lab.public_host("relay", number=3))
    host = lab.public_host("server", number=1, private=PRIVATE_SERVER)
    control = BadControlServer(host, PRIVATE_SERVER, 8080, relay.state / "derp-map.json", ENVIRONMENT)
    alice, bob = (Burid(lab.home_host(lab.home(f"{name}-home", server=host), name)) for name in ("alice", "bob"))
    alice.up(URL, "tskey-auth-x")
    bob.up(URL, "tskey-auth-x")
    assert direct_line(alice.ping("100.64.0.2"))
    with Talk(alice.host, bob.host, "100.64.0.2", 7001) as talk:
        yield World(control, alice, bob, talk)


def no_bug(process: Process) -> None:
    """Nothing was said that only a bug of ours says."""
    assert process.popen.poll() is None, process.lines[-15:]
    bad = [line for line in process.lines if "Traceback" in line or "please report" in line or line.startswith("E ")]
    assert not bad, bad


def settled(world: World, health: str = "") -> None:
    """Alice is on the bad server's map again, runs, and talks to bob."""
    wait_until("alice's map stream", lambda: world.alice.status()["Health"] in (None, [], [health]), timeout_s=40)
    assert world.alice.status()["BackendState"] == "Running"
    world.talk.goes_on()
    no_bug(world.alice.process)


BOMB = zstd.compress(bytes(300 << 20))
GARBAGE = {
    "bytes that are no zstd": (b"\x0c\0\0\0not zstd at all", "is not zstd"),
    "a length past all bounds": (b"\xff\xff\xff\xff", "too long"),
    "an empty message": (bytes(4), "does not read"),
    "a bomb": (len(BOMB).to_bytes(4, "little") + BOMB, "too long"),
    "half a frame": ((9).to_bytes(4, "little") + zstd.compress(b'{"KeepAlive":true}')[:9], "cut short|not zstd"),
}


@pytest.mark.parametrize(("data", "words"), GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_in_the_map_stream_is_one_sentence_and_a_new_stream(world: World, data: bytes, words: str) -> None:
    world.control.say_bytes(1, data)
    world.alice.process.expect(words)
    settled(world)


def json_text(text: bytes) -> bytes:
    body = zstd.compress(text)
    return len(body).to_bytes(4, "little") + body


def test_json_that_is_none_is_one_sentence_and_a_new_stream(world: World) -> None:
    for text in (b"not json", b"[]", b'{"Node": 5}', b'{"Peers": [{"ID": "x"}]}', b'{"Domain": "\xff"}',
                 b'{"SSHPolicy": ' + b"[" * 100_000, b'{"Unknown": ' + b'{"a":' * 100_000):  # fmt: skip
        start = len(world.alice.process.lines)
        world.control.say_bytes(1, json_text(text))
        world.alice.process.expect("does not read", start=start)
        settled(world)


def peer(number: int, **more: Any) -> dict[str, Any]:
    return {
        "ID": number,
        "Name": f"p{number}.bad.test.",
        "Key": "nodekey:" + f"{number:02x}" * 32,
        "DiscoKey": "discokey:" + f"{number:02x}" * 32,
        "Addresses": [f"100.64.0.{number}/32"],
        **more,
    }


def region(number: int = 77, **more: Any) -> dict[str, Any]:
    node = {"Name": "77a", "RegionID": number, "HostName": "192.0.2.1", "IPv4": "192.0.2.1", **more}
    return {str(number): {"RegionID": number, "RegionCode": "bad", "Nodes": [node]}}


NONSENSE: dict[str, dict[str, Any]] = {
    "peers with no keys": {"PeersChanged": [peer(9, Key=""), peer(10, Key="nodekey:zz"), peer(11, DiscoKey="x")]},
    "a peer with bob's address": {"PeersChanged": [peer(9, Addresses=["100.64.0.2/32"])]},
    "a peer with alice's address": {"PeersChanged": [peer(9, Addresses=["100.64.0.1/32"])]},
    "a peer with every address": {"PeersChanged": [peer(9, Addresses=["0.0.0.0/0", "::/0"])]},
    "routes that overlap": {"PeersChanged": [peer(9, AllowedIPs=["100.64.0.9/32", "100.64.0.0/10", "100.64.0.2/31"])]},
    "a peer at impossible places": {
        "PeersChanged": [peer(9, Endpoints=["", "1.2.3.4:70000", "[::", "0.0.0.0:0", "224.0.0.1:1"], HomeDERP=1 << 40)]
    },
    "a key of small order": {"PeersChanged": [peer(9, Key="nodekey:" + "00" * 31 + "01")]},
    "patches of nobody": {"PeersChangedPatch": [{"NodeID": 99, "Endpoints": ["x"]}], "PeersRemoved": [99, -1]},
    "a patch to nonsense": {"PeersChangedPatch": [{"NodeID": 9, "Key": "x", "DERPRegion": -7, "KeyExpiry": "soon"}]},
    "a region with impossible ports": {"DERPMap": {"Regions": region(DERPPort=70000, STUNPort=1 << 20)}},
    "a region with an impossible name": {"DERPMap": {"Regions": region(HostName="." + "a" * 300, IPv4="")}},
    "a region without a name": {"DERPMap": {"Regions": region(HostName="")}},
    "a region of another number": {"DERPMap": {"Regions": {"78": region()["77"]}}},
    "an impossible region": {"DERPMap": {"Regions": region(1 << 40)}},
    "a region with a bad pin": {"DERPMap": {"Regions": region(CertName="sha256-raw:zz")}},
    "no relays": {"DERPMap": {"Regions": {}}},
    "a filter of nonsense": {
        "PacketFilter": [
            {"SrcIPs": ["*"], "DstPorts": [{"IP": "*", "Ports": {"First": 0, "Last": 65535}}]},
            {"SrcIPs": ["x", "1.2.3.4-1.2.3.0"], "DstPorts": [{"IP": "*", "Ports": {"First": 9, "Last": 1}}]},
            {"SrcIPs": ["*"], "IPProto": [-1, 9999], "DstPorts": [{"IP": "*", "Ports": {"First": -1, "Last": 1 << 40}}]},
        ]
    },
    "times that are none": {"ControlTime": "yesterday", "PeersChanged": [peer(9, KeyExpiry="0001-01-01T00:00:01")]},
    "pings to nowhere": {"PingRequest": {"URL": "http://[::1", "Types": "disco", "IP": "x"}},
    "a ping inside of nowhere": {"PingRequest": {"URL": "x", "URLIsNoise": True, "Types": "c2n,disco,x"}},
    "a ping with a path of nonsense": {"PingRequest": {"URL": "https://h/\r\na b\0", "URLIsNoise": True}},
    "users and DNS of nonsense": {
        "UserProfiles": [{"ID": -1}], "DNSConfig": {"Domains": ["\0"], "Routes": {".": None}}, "PopBrowserURL": "\x1b[2J"
    },
}  # fmt: skip


def test_a_netmap_of_nonsense_harms_nobody(world: World) -> None:
    for what, message in NONSENSE.items():
        world.control.say(1, message)
        world.control.say(1, {"PeersChanged": [peer(50)]})  # said and done: the peer after it is known
        wait_until(f"alice to take {what}", lambda: "100.64.0.50" in str(world.alice.status()["Peer"]))
        world.control.say(1, {"PeersRemoved": [50]})
        wait_until("the peer to be gone", lambda: "100.64.0.50" not in str(world.alice.status()["Peer"]))
        world.talk.goes_on()
        no_bug(world.alice.process)
    assert direct_line(world.alice.ping("100.64.0.2"))
    world.control.begin_with(NONSENSE["peers with no keys"] | NONSENSE["a region with an impossible name"])
    world.alice.process.kill()
    world.alice.start()
    wait_until("alice to run again", lambda: world.alice.status()["BackendState"] in ("Running", "Starting"))
    no_bug(world.alice.process)


def test_our_own_address_may_be_nonsense_and_the_node_stays(world: World) -> None:
    own = {"ID": 1, "Name": "n1.bad.test.", "Key": world.alice.status()["Self"]["PublicKey"], "MachineAuthorized": True}
    for addresses in (["127.0.0.1/32"], ["0.0.0.0/0"], ["x"], [], None):
        world.control.say(1, {"Node": {**own, "Addresses": addresses}})
        wait_until("no address", lambda: not world.alice.status()["Self"]["TailscaleIPs"])
        no_bug(world.alice.process)
    world.control.say(1, {"Node": {**own, "Addresses": ["100.64.0.1/32"]}})
    wait_until("her address", lambda: world.alice.status()["Self"]["TailscaleIPs"] == ["100.64.0.1"])
    assert direct_line(world.alice.ping("100.64.0.2"))


# ---- servers and relays that stall ------------------------------------------------------------------------------------


def test_a_control_server_that_stalls_costs_no_traffic_and_is_named(lab: Lab) -> None:
    server = BuriServer(lab.public_host("server", number=1, private=PRIVATE_SERVER))
    alice, bob, carol = (
        Burid(lab.home_host(lab.home(f"{name}-home", server=server.host), name)) for name in ("alice", "bob", "carol")
    )
    key = server.auth_key()
    alice.up(URL, key)
    bob.up(URL, key)
    assert direct_line(alice.ping(bob.address()))
    with Talk(alice.host, bob.host, bob.address(), 7001, patience_s=20) as talk:
        server.process.popen.send_signal(signal.SIGSTOP)  # the kernel goes on taking connections; nobody answers them
        code, said = carol.code("up", f"--login-server={URL}", f"--auth-key={key}", "--timeout=40s")
        sentences = [line for line in said.splitlines() if line.startswith("buri: ")]
        assert (code, len(sentences)) == (1, 1), said
        assert f"{URL} cannot be reached: no answer in time" in said or "does not answer" in said, said
        alice.process.kill()  # a node comes up from what it kept while its server says nothing
        alice.start()
        wait_until(
            "alice to reach bob",
            lambda: not alice.host.run("ping", "-c1", "-W1", bob.address(), check=False).returncode,
        )
        server.process.popen.send_signal(signal.SIGCONT)
        carol.up(URL, key)
        assert talk.goes_on()
    for node in (alice, bob, carol):
        no_bug(node.process)
    wait_until("all to be online", lambda: all(node["online"] for node in server.nodes()), timeout_s=60)


def test_a_relay_that_stalls_is_named_and_left_for_another(lab: Lab) -> None:
    relay = BuriRelay(lab.public_host("relay", number=3))
    host = lab.public_host("server", number=1, private=PRIVATE_SERVER)
    flags = ("--listen=0.0.0.0:8080", f"--url={URL}", f"--derp-map={relay.state / 'derp-map.json'}")
    server = BuriServer(host, *flags)
    homes = (lab.home("alice-home", server=host), lab.home("bob-home", server=host))
    alice, bob = Burid(lab.home_host(homes[0], "alice")), Burid(lab.home_host(homes[1], "bob"))
    key = server.auth_key()
    alice.up(URL, key)
    bob.up(URL, key)
    assert direct_line(alice.ping(bob.address()))
    with Talk(alice.host, bob.host, bob.address(), 7001, patience_s=20) as talk:
        relay.process.popen.send_signal(signal.SIGSTOP)  # amid its connections, if it has any
        talk.goes_on()
        alice.process.kill()  # and from the start: it accepts, and never says a word
        alice.start()
        wait_until("Running", lambda: alice.status()["BackendState"] == "Running", timeout_s=30)
        wait_until("a home that speaks", lambda: alice.status()["Self"]["Relay"] == "buri", timeout_s=30)
        block_udp(homes, on=True)  # now all goes by the relay that lives
        talk.goes_on()
        relay.process.popen.send_signal(signal.SIGCONT)
        block_udp(homes, on=False)
        talk.goes_on()
    for node in (alice, bob):
        no_bug(node.process)
