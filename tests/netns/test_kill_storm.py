"""A minute of `kill -9`: node, control server and relay, each again and again, while machines join and traffic flows.

`BURI_STORM_SEED` repeats a storm's dice (not the machine's own timing), `BURI_STORM_S` sets how long it lasts.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable

import msgspec
import pytest

from buri.testing.lab import PRIVATE_SERVER, Host, Lab, LabError, Process, wait_until
from buri.testing.ourpeers import ENVIRONMENT, PROGRAMS, Burid, BuriRelay, BuriServer
from buri.testing.registrations import Acknowledged
from buri.testing.traffic import Talk, block_udp, send_checked, start_sink

pytestmark = [pytest.mark.root, pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(240)]

URL = f"http://{PRIVATE_SERVER}:8080"
SEED = int(os.environ.get("BURI_STORM_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
STORM_S = float(os.environ.get("BURI_STORM_S", "60"))
MOST_MACHINES = 300
# What no start may say: our programs' own errors, Python's, Rust's.
ERROR = re.compile(r"Traceback|panicked|^[EC] | (ERROR|CRITICAL) |^(burid|buri server|buri relay): ")


class Victim:
    """A program that is killed and started anew; every start is watched for what it must not say.

    Half of its lives end at a random moment of its first second, mostly amid its start; half within a second and a half
    after it said that it was ready: about one kill a second, and something gets done on a slow machine as well.
    """

    def __init__(self, name: str, ready: str, start: Callable[[], Process], process: Process, seed: int) -> None:
        self.name = name
        self.kills = 0
        self.problem = ""
        self._ready = ready
        self._start = start
        self._process = process
        self._dice = random.Random(seed)

    def storm(self, until: float) -> None:
        """Kill and start until a moment of the monotonic clock; it is left running."""
        while time.monotonic() < until and not self.problem:
            self._live()
            if not self.problem:
                self._process.kill()
                self.kills += 1
                self._check()
                self._process = self._start()

    def _live(self) -> None:
        life_s = self._dice.uniform(0.0, 1.0)
        try:
            if self._dice.random() < 0.5:
                self._process.expect(self._ready, timeout_s=30)
                life_s *= 1.5
            self._blame(f"ended by itself with {self._process.popen.wait(life_s)}")
        except subprocess.TimeoutExpired:
            return  # it lived
        except LabError as error:
            self._blame(str(error))

    def settle(self) -> None:
        """The last start: it must have lived, and said nothing wrong."""
        if not self.problem and (code := self._process.popen.poll()) is not None:
            self._blame(f"ended by itself with {code}")
        self._check()

    def _check(self) -> None:
        bad = [line for line in self._process.lines if ERROR.search(line)]
        if bad and not self.problem:
            self._blame("said " + " / ".join(bad[:3]))

    def _blame(self, what: str) -> None:
        tail = "\n".join(self._process.lines[-25:])
        self.problem = f"{self.name}, start {self.kills + 1}, {what}:\n{tail}"


def starter(host: Host, name: str, *words: str) -> Callable[[], Process]:
    """Start a program without waiting for anything: it may be killed at any line of its start."""
    return lambda: host.start(name, *words, env=ENVIRONMENT)


def acknowledged(process: Process) -> list[Acknowledged]:
    return [msgspec.json.decode(line, type=Acknowledged) for line in process.lines if line.startswith("{")]


def reaches(source: Burid, address: str) -> bool:
    return source.host.run("ping", "-c1", "-W1", address, check=False).returncode == 0


def test_a_minute_of_kill_9_loses_nothing_that_was_acknowledged_and_all_converge(lab: Lab) -> None:
    print(f"BURI_STORM_SEED={SEED}")
    relay = BuriRelay(lab.public_host("relay", number=3))
    server_host = lab.public_host("server", number=1, private=PRIVATE_SERVER)
    flags = ("--listen=0.0.0.0:8080", f"--url={URL}", f"--derp-map={relay.state / 'derp-map.json'}")
    server = BuriServer(server_host, *flags)
    homes = [lab.home(f"{name}-home", server=server_host) for name in ("alice", "bob", "carol")]
    alice, bob, carol = (
        Burid(lab.home_host(home, name)) for home, name in zip(homes, ("alice", "bob", "carol"), strict=True)
    )
    block_udp((homes[1], homes[2]), on=True)  # bob and carol have the relays alone
    key = server.auth_key(user="storm")
    for node in (alice, bob, carol):
        node.up(URL, key)
    nodes = {"alice": alice.address(), "bob": bob.address(), "carol": carol.address()}
    assert "via DERP" not in alice.ping(nodes["bob"])[-1]
    for node in (bob, carol):
        start_sink(node.host, nodes[node.host.name], 7000)
    talk = Talk(alice.host, bob.host, nodes["bob"], 7001)
    joining = alice.host.start(
        "joining", sys.executable, "-m", "buri.testing.registrations",
        PRIVATE_SERVER, "8080", str(server.state / "admin.sock"), "storm", str(MOST_MACHINES), env=ENVIRONMENT,
    )  # fmt: skip
    joining.expect("ready")

    server_words = (*PROGRAMS["buri"], "server", f"--state-dir={server.state}", *flags)
    relay_words = (
        *PROGRAMS["buri"], "relay", f"--state-dir={relay.state}", "--listen=[::]:443", f"--metrics={relay.METRICS}",
        *relay.flags,
    )  # fmt: skip
    carol_words = (*PROGRAMS["burid"], f"--statedir={carol.state}", f"--socket={carol.socket}", "--tun=buri0")
    victims = [
        Victim(
            "buri server", "buri up --login-server", starter(server.host, "server", *server_words), server.process, SEED
        ),
        Victim("buri relay", "omitDefaultRegions", starter(relay.host, "relay", *relay_words), relay.process, SEED + 1),
        Victim("burid", "Ready", starter(carol.host, "burid", *carol_words), carol.process, SEED + 2),
    ]
    until = time.monotonic() + STORM_S
    threads = [threading.Thread(target=victim.storm, args=(until,)) for victim in victims]
    for thread in threads:
        thread.start()
    answered = 0
    while time.monotonic() < until:  # through the node that dies, whenever it lives
        answered += reaches(alice, nodes["carol"])
    for thread in threads:
        thread.join()
    assert not [victim.problem for victim in victims if victim.problem]

    wait_until("the server to be back", lambda: "[" in server.admin("nodes", "list", "--json", check=False))
    joining.stop()
    told = acknowledged(joining)
    report = f"{Counter({victim.name: victim.kills for victim in victims})}, {len(told)} machines joined, "
    report += f"carol answered {answered} pings, {talk.goes_on()}"
    print(report)
    assert joining.popen.returncode == 0, joining.lines[-15:]
    assert len(told) > STORM_S / 6, report
    assert answered, report

    # Nothing acknowledged is lost, and no address is given twice.
    known = {node["node_key"]: node for node in server.nodes()}
    lost = [one for one in told if one.node_key not in known]
    assert not lost
    moved = [one for one in told if [f.partition("/")[0] for f in one.addresses] != known[one.node_key]["addresses"]]
    assert not moved
    twice = Counter(address for node in known.values() for address in node["addresses"])
    assert max(twice.values()) == 1, twice.most_common(3)
    keys = {row["id"]: row["state"] for row in json.loads(server.admin("preauthkeys", "list", "--json"))}
    assert {keys[one.auth_key_id] for one in told} == {"used"}
    named = {node["name"]: node["addresses"][0] for node in known.values() if node["name"] in nodes}
    assert named == nodes

    # All converge: everyone is online, sees everybody, and speaks to everybody, by the relays too.
    wait_until(
        "the three to be online",
        lambda: all(node["online"] for node in server.nodes() if node["name"] in nodes),
        timeout_s=60,
    )
    for node in (alice, bob, carol):
        wait_until(
            f"{node.host.name} to know all the others",
            lambda node=node: len(node.status()["Peer"] or {}) == len(known) - 1,  # type: ignore[misc]
            timeout_s=30,
        )
    for source, target in ((alice, "carol"), (bob, "carol"), (carol, "bob"), (alice, "bob")):
        wait_until(f"{source.host.name} to reach {target}", lambda s=source, t=target: reaches(s, nodes[t]))  # type: ignore[misc]
        send_checked(source.host, nodes[target], 7000, 1_000_000)
    for victim in victims:
        victim.settle()
    assert not [victim.problem for victim in victims if victim.problem]
