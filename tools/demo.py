"""The demo: a small internet of namespaces, a server, two homes behind their own NATs, and a mesh between them.

`make demo` runs it; `make demo KEEP=1` leaves the mesh running, `tools/demo.py --end` takes it away again. An ordinary user
gets the same in a user namespace, where a /dev/net/tun of mode 0666 lets them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from buri.core.errors import BuriError, NotPermittedError
from buri.testing import ordinaryuser
from buri.testing.lab import PRIVATE_SERVER, Home, Host, Lab, LabError, in_user_namespace, wait_until
from buri.testing.ourpeers import Burid, BuriServer
from buri.testing.traffic import block_udp

ROOT = Path(__file__).resolve().parents[1]
BIN = ROOT / ".venv/bin"
if os.access(ROOT, os.W_OK):
    PLACE = ROOT / "build/demo"
else:  # somebody else's checkout
    PLACE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "buri/demo"
RATE = "60mbit"
URL = f"http://{PRIVATE_SERVER}:8080"

ECHO_SERVER = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("0.0.0.0", int(sys.argv[1])))
print("ready", flush=True)
while True:
    data, source = s.recvfrom(2048)
    s.sendto(data, source)
"""
ECHO_CLIENT = """
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(1)
s.connect((sys.argv[1], int(sys.argv[2])))
for i in range(int(sys.argv[3])):
    began = time.perf_counter()
    s.send(b"%d" % i)
    try:
        s.recv(2048)
    except TimeoutError:
        continue
    print((time.perf_counter() - began) * 1000)
    time.sleep(0.01)
"""


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    """Say what is being done, that it goes on (every two seconds), and how long it took."""
    began = time.monotonic()
    done = threading.Event()
    print(f"• {what} …", end="", flush=True)

    def tick() -> None:
        while not done.wait(2):
            print(f" {time.monotonic() - began:.0f} s", end="", flush=True)

    ticker = threading.Thread(target=tick, daemon=True)
    ticker.start()
    try:
        yield
    except BaseException:
        done.set()
        print(f"\n✗ This step failed: {what}. Logs: {PLACE}/<host>/*.log", flush=True)
        raise
    done.set()
    ticker.join()
    print(f" done ({time.monotonic() - began:.1f} s)", flush=True)


@dataclass
class Way:
    """One row of the table."""

    name: str
    latency_ms: float
    mbit_s: float


def measure(name: str, client: Host, server: Host, address: str, port: int) -> Way:
    """Mean UDP round trip of 100, then 8 s of TCP."""
    echo = server.start("echo", sys.executable, "-c", ECHO_SERVER, str(port))
    echo.expect("ready")
    text = client.run(sys.executable, "-c", ECHO_CLIENT, address, str(port), "110").stdout
    echo.stop()
    times = [float(word) for word in text.split()][10:]
    if not times:
        raise LabError(f"no echo came back {name}.")
    iperf = server.start("iperf3", "iperf3", "-s", "-1", "-p", str(port), "--forceflush")
    iperf.expect("Server listening")
    out = client.run("iperf3", "-c", address, "-p", str(port), "-t", "8", "-O", "2", "-J", timeout_s=40).stdout
    iperf.stop()
    report = json.loads(out)
    return Way(name, statistics.fmean(times), report["end"]["sum_received"]["bits_per_second"] / 1e6)


def show(text: str) -> None:
    for line in text.rstrip().splitlines():
        print(f"    {line}", flush=True)


def run(lab: Lab, *, measured: bool) -> None:
    with step("laying out a small internet: a server, two homes behind NATs, 60 Mbit/s each"):
        server = lab.public_host("server", number=1, private=PRIVATE_SERVER)
        tokyo = lab.home("tokyo", rate=RATE, server=server)
        osaka = lab.home("osaka", rate=RATE, server=server)
        alice_host, bob_host = lab.home_host(tokyo, "alice"), lab.home_host(osaka, "bob")
        lab.forward(osaka, 5201, bob_host)
    with step("starting `buri server` (control and relay in one)"):
        service = BuriServer(server, "--listen=0.0.0.0:8080", f"--url={URL}", "--stun=0.0.0.0:3478")
        key = service.auth_key("--reusable", user="demo")
    with step("starting `burid` in both homes"):
        alice, bob = Burid(alice_host), Burid(bob_host)
    with step("joining both with `buri up`"):
        for node in (alice, bob):
            node.up(URL, key)
        bob_address = bob.address()
    print(f"\n  alice$ buri ping {bob_address}")
    show(alice.cli("ping", "-c", "10", bob_address))
    print("\n  alice$ buri status")
    show(alice.cli("status"))
    print(f"\n  alice$ traceroute -n {bob_address}")
    traced = alice.host.run("traceroute", "-n", "-q", "1", "-w", "2", bob_address).stdout
    show(traced)
    hops = [line for line in traced.splitlines()[1:] if line.strip()]
    if len(hops) != 1 or bob_address not in hops[0]:
        raise LabError(f"traceroute should show one hop, {bob_address}, and shows {len(hops)}.")
    print()
    if measured:
        measure_all(alice, bob, (tokyo, osaka))
    tell_what_next(lab, (alice, bob), service)


def measure_all(alice: Burid, bob: Burid, homes: tuple[Home, Home]) -> None:
    """The table: bare, direct and by the relay."""
    bob_address = bob.address()
    ways = []
    with step("measuring bare (a forwarded port on osaka's router)"):
        ways.append(measure("bare, by a forwarded port", alice.host, bob.host, homes[1].public, 5201))
    with step("measuring the mesh, direct"):
        ways.append(measure("Buri, direct", alice.host, bob.host, bob_address, 5202))
    with step("forbidding UDP between the homes, waiting for the relay"):
        block_udp(homes, on=True)
        wait_until(
            "traffic by the relay",
            lambda: "via DERP" in alice.cli("ping", "-c", "1", "--until-direct=false", bob_address, check=False),
            timeout_s=30,
        )
    with step("measuring the mesh, by the relay"):
        ways.append(measure("Buri, by the relay", alice.host, bob.host, bob_address, 5203))
    print("\n  alice$ buri status")
    show(alice.cli("status"))
    block_udp(homes, on=False)
    print(f"\n  {'':28}{'mean latency':>14}{'throughput':>16}{'of bare':>10}")
    for way in ways:
        share = f"{100 * way.mbit_s / ways[0].mbit_s:.1f} %"
        print(f"  {way.name:28}{way.latency_ms:>11.2f} ms{way.mbit_s:>9.1f} Mbit/s{share:>10}")


def enter_from_outside(host: Host) -> str:
    """The words that put a person's command into a host; an ordinary user passes by way of the user namespace."""
    by_way = ["--user", "--preserve-credentials"] if in_user_namespace() else []
    first, *more = host.enter()
    return " ".join([first, *by_way, *more])


def tell_what_next(lab: Lab, nodes: tuple[Burid, Burid], service: BuriServer) -> None:
    """How to play with a mesh that is kept, or what to try next."""
    if lab.keep:
        pids = [host.pid for host in lab.hosts.values()]
        pids += [process.popen.pid for host in lab.hosts.values() for process in host.processes]
        (PLACE / "pids").write_text(" ".join(map(str, pids)))
        print("\nIt is still running. Play with it:")
        for node in nodes:
            print(f"  {enter_from_outside(node.host)} {BIN}/buri --socket={node.socket} status")
        print(f"  {enter_from_outside(nodes[0].host)} ping {nodes[1].address()}")
        print(f"  {enter_from_outside(service.host)} {BIN}/buri admin --state-dir={service.state} nodes list")
        print(f"End it: {BIN}/python tools/demo.py --end")
    else:
        print("\nWhat next:")
        print("  make demo KEEP=1        the same, left running to play with")
        print("  make test               the proof against real Tailscale programs")
        print("  README.md               a quick start for two real machines")


def end() -> int:
    """Take a kept demo away."""
    path = PLACE / "pids"
    if not path.exists():
        print("No demo is running.")
        return 0
    for pid in map(int, path.read_text().split()):
        if re.search(r"burid|buri|sleep|nsenter|iperf3", _command(pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    path.unlink()
    print("The demo is gone.")
    return 0


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the mesh running")
    parser.add_argument("--end", action="store_true", help="take a kept mesh away")
    parser.add_argument("--brief", action="store_true", help="join and ping, and measure nothing")
    options = parser.parse_args()
    if options.end:
        return end()
    if words := ordinaryuser.words():
        if reason := ordinaryuser.why_not():
            print(f"✗ The demo cannot run: {reason}", file=sys.stderr)
            return NotPermittedError.exit_code
        os.execvp(words[0], [*words, sys.executable, *sys.argv])
    end_quietly()
    began = time.monotonic()
    try:
        with Lab(PLACE, keep=options.keep) as lab:
            try:
                run(lab, measured=not options.brief)
            except BaseException:
                lab.close()
                raise
    except BuriError as error:
        print(f"✗ {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    print(f"\nThe demo took {time.monotonic() - began:.0f} s.")
    return 0


def end_quietly() -> None:
    """A kept demo of before would hold the same directory."""
    if (PLACE / "pids").exists():
        end()
    shutil.rmtree(PLACE, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
