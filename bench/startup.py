"""How soon a node is there and how little it takes: `burid` and `buri` beside `tailscaled` and `tailscale`.

In interleaved rounds on Tailscale's own control server for tests, with `derper`, each in a home of its own: from the
exec of the daemon to its socket, from that exec to the end of `up` with an auth key, one `status`; then both with ten
peers, doing nothing. Usage: `python bench/startup.py [--rounds 5] [--idle 30]` (root, `make peers`).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from buri.core.errors import BuriError, SystemFault
from buri.testing.benchload import rss_mb
from buri.testing.benchreport import text_table
from buri.testing.lab import PRIVATE_SERVER, Host, Lab, Process, peer, wait_until
from buri.testing.ourpeers import ENVIRONMENT, PROGRAMS
from buri.testing.realpeers import TestControl, start_derper

PEERS = 10
PATIENCE_S = 20.0
KEY = "any-key"


@dataclass
class Kind:
    """One maker's daemon and command line on a host."""

    name: str
    host: Host
    daemon: list[str | Path]
    cli: list[str | Path]
    socket: Path
    socket_s: list[float] = field(default_factory=list)
    joined_s: list[float] = field(default_factory=list)
    daemon_cpu_s: list[float] = field(default_factory=list)
    status_cpu_s: list[float] = field(default_factory=list)
    status_s: list[float] = field(default_factory=list)
    idle_percent: float = 0.0
    idle_mb: float = 0.0

    def status(self) -> dict[str, object]:
        """`status --json`."""
        found: dict[str, object] = json.loads(self.host.run(*self.cli, "status", "--json", env=ENVIRONMENT).stdout)
        return found


def buri(host: Host) -> Kind:
    """Ours."""
    where, state = host.directory / "burid.sock", host.directory / "buri"
    daemon: list[str | Path] = [*PROGRAMS["burid"], f"--statedir={state}", f"--socket={where}", "--tun=buri0"]
    return Kind("buri", host, daemon, [*PROGRAMS["buri"], f"--socket={where}"], where)


def tailscale(host: Host) -> Kind:
    """The one beside it."""
    where, state = host.directory / "tailscaled.sock", host.directory / "tailscale"
    daemon: list[str | Path] = [peer("tailscaled"), f"--statedir={state}", f"--socket={where}", "--port=41641"]
    return Kind("tailscale", host, daemon, [peer("tailscale"), f"--socket={where}"], where)


def start(kind: Kind) -> tuple[Process, float]:
    """Start the daemon afresh; the process, and when its exec was (monotonic)."""
    kind.socket.unlink(missing_ok=True)
    began_s = time.monotonic()
    process = kind.host.start("daemon", *kind.daemon, env=ENVIRONMENT)
    while time.monotonic() - began_s < PATIENCE_S:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            if probe.connect_ex(str(kind.socket)) == 0:
                return process, began_s
        time.sleep(0.002)
    raise SystemFault(f"{kind.name}'s socket did not come: {process.lines[-5:]}")


def cpu_s(process: Process) -> float:
    """CPU time of all threads that live, to the nanosecond (the kernel's ticks are too coarse for an idle daemon)."""
    tasks = Path(f"/proc/{process.popen.pid}/task").glob("*/schedstat")
    return sum(int(path.read_text().split()[0]) for path in tasks) / 1e9


def join(kind: Kind, control: TestControl) -> Process:
    """One start with `up`, timed."""
    process, began_s = start(kind)
    kind.socket_s.append(time.monotonic() - began_s)
    kind.host.run(*kind.cli, "up", f"--login-server={control.url}", f"--auth-key={KEY}", env=ENVIRONMENT)
    kind.joined_s.append(time.monotonic() - began_s)
    kind.daemon_cpu_s.append(cpu_s(process))
    return process


def ask_status(kind: Kind) -> None:
    """One `status`, its CPU and its time."""
    began_s = time.monotonic()
    child = subprocess.Popen(
        [*kind.host.enter(), *map(str, kind.cli), "status"],
        env={**os.environ, **ENVIRONMENT},
        stdout=subprocess.DEVNULL,
    )
    _, code, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(code)
    kind.status_s.append(time.monotonic() - began_s)
    kind.status_cpu_s.append(used.ru_utime + used.ru_stime)


def leave(kind: Kind, process: Process) -> None:
    """Log out, stop, and leave nothing for the next start."""
    kind.host.run(*kind.cli, "logout", check=False, env=ENVIRONMENT)
    process.stop()
    kind.host.processes.remove(process)


def has_peers(kind: Kind) -> bool:
    """Whether it knows all ten."""
    peers = kind.status()["Peer"]
    return isinstance(peers, dict) and len(peers) == PEERS


def idle(kinds: list[Kind], control: TestControl, seconds: float) -> None:
    """Both with the same ten peers, doing nothing at the same time."""
    daemons = [join(kind, control) for kind in kinds]
    dice = random.Random(1)
    peers = [
        {
            "ID": 1000 + number,
            "Name": f"p{number}.tailnet.test.",
            "Key": "nodekey:" + dice.randbytes(32).hex(),
            "DiscoKey": "discokey:" + dice.randbytes(32).hex(),
            "Addresses": [f"100.70.0.{number + 1}/32"],
            "Endpoints": [f"203.0.113.{200 + number}:41641"],
            "HomeDERP": 9,
            "Online": True,
            "MachineAuthorized": True,
            "Hostinfo": {"Hostname": f"p{number}", "OS": "linux"},
        }
        for number in range(PEERS - 1)  # each other is the tenth
    ]
    for node in control.nodes():
        control.call("POST", f"/map?key={node['Key']}", json.dumps({"PeersChanged": peers}))
    for kind in kinds:
        wait_until(f"{kind.name} to have ten peers", partial(has_peers, kind))
    time.sleep(5)  # what `up` set going has come to rest
    before = [cpu_s(daemon) for daemon in daemons]
    began_s = time.monotonic()
    time.sleep(seconds)
    took_s = time.monotonic() - began_s
    for kind, daemon, used_s in zip(kinds, daemons, before, strict=True):
        kind.idle_percent = (cpu_s(daemon) - used_s) / took_s * 100
        kind.idle_mb = rss_mb(daemon)
        leave(kind, daemon)


HEADINGS = (
    "node", "exec to socket, s", "start + up, s", "daemon's CPU for it, s", "status, CPU ms", "status, ms",
    "idle, % of a core", "idle, MB",
)  # fmt: skip


def row(kind: Kind) -> list[str]:
    """A line of the table: medians, and the spread."""

    def cell(values: list[float], scale: float = 1.0, digits: int = 2) -> str:
        low, middle, high = (f"{value * scale:.{digits}f}" for value in spread(values))
        return f"{middle} ({low}–{high})"

    return [
        kind.name,
        cell(kind.socket_s),
        cell(kind.joined_s),
        cell(kind.daemon_cpu_s),
        cell(kind.status_cpu_s, 1e3, 0),
        cell(kind.status_s, 1e3, 0),
        f"{kind.idle_percent:.2f}",
        f"{kind.idle_mb:.0f}",
    ]


def spread(values: list[float]) -> tuple[float, float, float]:
    """Least, median, most."""
    return min(values), statistics.median(values), max(values)


@contextlib.contextmanager
def laid_out() -> Iterator[tuple[TestControl, list[Kind]]]:
    """A fresh control server, and one host of each kind in a home of its own."""
    with tempfile.TemporaryDirectory(prefix="bs-") as directory, Lab(Path(directory)) as lab:
        server = lab.public_host("server", number=1, private=PRIVATE_SERVER)
        _, derp_map = start_derper(server)
        control = TestControl(server, PRIVATE_SERVER, derp_map)
        homes = [lab.home(name, server=server) for name in ("tokyo", "osaka")]
        yield control, [buri(lab.home_host(homes[0], "one")), tailscale(lab.home_host(homes[1], "two"))]


def measure(rounds: int, idle_s: float) -> list[Kind]:
    """All of it; returns both kinds with what was measured."""
    with laid_out() as (control, kinds):
        for _ in range(rounds):
            for kind in kinds:
                daemon = join(kind, control)
                ask_status(kind)
                leave(kind, daemon)
    if idle_s:
        with laid_out() as (control, idlers):
            idle(idlers, control, idle_s)
            for kind, idler in zip(kinds, idlers, strict=True):
                kind.idle_percent, kind.idle_mb = idler.idle_percent, idler.idle_mb
    return kinds


def main() -> int:
    """Measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--idle", type=float, default=30.0, help="seconds of doing nothing")
    options = parser.parse_args()
    try:
        kinds = measure(options.rounds, options.idle)
    except BuriError as error:
        print(f"bench/startup.py: {error}", file=sys.stderr)
        return error.exit_code
    print(text_table([[*HEADINGS], *map(row, kinds)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
