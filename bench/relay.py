"""Relayed throughput: two Buri engines that reach each other by a relay alone, `buri relay` and Tailscale's derper in turn.

Everything runs on this machine in namespaces (root, `make engine`, `make peers`, iperf3), so both ends, the relay and
iperf3 share its cores: only ratios within one run mean anything. Usage: `python bench/relay.py [--rounds 3] [--seconds 6]`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from buri.testing.enginelab import two_sides
from buri.testing.lab import Lab, Process, why_not
from buri.testing.ourpeers import BuriRelay
from buri.testing.realpeers import start_derper

REGION = BuriRelay.REGION


class Round(NamedTuple):
    """One run: bits a second received, the relay's CPU seconds per GB, its resident memory."""

    gbit_s: float
    cpu_s_per_gb: float
    rss_mb: float


def cpu_s(process: Process) -> float:
    """CPU time that a process has used."""
    fields = Path(f"/proc/{process.popen.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(process: Process) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{process.popen.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure(kind: str, seconds: int) -> Round:
    """One TCP stream through a relay of `kind`."""
    with tempfile.TemporaryDirectory(prefix="buri-bench-") as directory, Lab(Path(directory)) as lab:
        host = lab.public_host("relay", number=9)
        one, two = two_sides(lab)
        where: dict[str, Any]
        if kind == "derper":
            relay, _ = start_derper(host)
            where = {"region": REGION, "address": host.address, "port": 3340, "insecure": True}
        else:
            ours = BuriRelay(host)
            relay, where = ours.process, ours.trust()
        for side, other in ((one, two), (two, one)):
            side.start(side.config(other, way={"udp": None, "relay": REGION}, relay=where)).expect("RelayUp")
        one.host.run("ping", "-c1", "-W3", two.ipv4)
        two.host.start("iperf3", "iperf3", "-s", "-1", "--forceflush", "-B", two.ipv4).expect("listening")
        before_s = cpu_s(relay)
        done = one.host.run("iperf3", "-c", two.ipv4, "-t", str(seconds), "-J", timeout_s=seconds + 30.0)
        received = json.loads(done.stdout)["end"]["sum_received"]
        used_s = cpu_s(relay) - before_s
        return Round(received["bits_per_second"] / 1e9, used_s / (received["bytes"] / 1e9), rss_mb(relay))


def main() -> int:
    """Interleave the relays, print every round and the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=6)
    options = parser.parse_args()
    if (reason := why_not()) is not None:
        print(f"bench/relay.py cannot run here: {reason}", file=sys.stderr)
        return 3
    found: dict[str, list[Round]] = {"derper": [], "buri relay": []}
    print(f"{'':12}{'Gbit/s':>9}{'CPU-s/GB':>10}{'RSS, MB':>9}")
    for _ in range(options.rounds):
        for kind, rounds in found.items():
            rounds.append(measure(kind, options.seconds))
            print(line(kind, rounds[-1]), flush=True)
    print("medians")
    for kind, rounds in found.items():
        print(line(kind, Round(*(statistics.median(column) for column in zip(*rounds, strict=True)))))
    return 0


def line(kind: str, one: Round) -> str:
    """A row of the table."""
    return f"{kind:12}{one.gbit_s:9.2f}{one.cpu_s_per_gb:10.2f}{one.rss_mb:9.0f}"


if __name__ == "__main__":
    sys.exit(main())
