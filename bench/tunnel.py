"""How fast the tunnel is: Buri beside tailscaled, wireguard-go and no tunnel at all, in interleaved rounds.

Everything runs on this machine in namespaces (root, `make engine`, `make peers`, iperf3, ethtool): both ends, the relay and
the load generator share its cores, so only ratios within one run mean anything. Three topologies: `direct` (one veth bridge),
`wire` (the same with segmentation offloads off, so that packets are really cut, as before a network card), `relay` (UDP
blocked: by `buri server`'s own relay, beside `derper`). A run in which other processes took more than 0.15 of a core counts
only when no other did, and is marked with a *. Usage: `python bench/tunnel.py [--rounds 5] [--seconds 5] [--only …]`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from shutil import which

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from buri.core.errors import BuriError
from buri.testing import benchload, contenders
from buri.testing.benchreport import Metric, Panel, Sample, markdown_table, rows, summarize, svg_chart, text_table
from buri.testing.lab import peer, why_not
from buri.testing.traffic import send_checked, start_sink

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
TOPOLOGIES = ("direct", "wire", "relay")
BASE = "tailscaled"
CHECKED_BYTES = 20_000_000
METRICS = (
    Metric("tcp1", "TCP 1 stream, Gbit/s", 2),
    Metric("tcp1r", "TCP reverse, Gbit/s", 2),
    Metric("tcp4", "TCP 4 streams, Gbit/s", 2),
    Metric("tcp16", "TCP 16 streams, Gbit/s", 2),
    Metric("cpu", "CPU-s per GB, all daemons", 2, more_is_better=False),
    Metric("udp1200", "UDP 1200 B of 3 Gbit/s, kpps", 0),
    Metric("udp200", "UDP 200 B of 1 Gbit/s, kpps", 0),
    Metric("ping", "flood ping, µs", 0, more_is_better=False),
    Metric("rss", "RSS of the larger end, MB", 0, more_is_better=False),
    Metric("relay_rss", "RSS of the relay, MB", 0, more_is_better=False),
)
Samples = dict[str, list[Sample]]


def measure(name: str, topology: str, seconds: int, directory: Path) -> dict[str, Sample]:
    """One round of one contender in a fresh lab: every metric once. Every byte of a transfer each way is checked first."""
    found: dict[str, Sample] = {}
    with contenders.open_lab(directory) as lab:
        tunnel = contenders.CONTENDERS[name](lab, topology)
        one, two, there = tunnel.one, tunnel.two, tunnel.address_two
        for sender, receiver, address in ((one, two, there), (two, one, tunnel.address_one)):
            start_sink(receiver, address, 7000)
            send_checked(sender, address, 7000, CHECKED_BYTES)
            receiver.processes.pop().stop()

        def run(key: str, work: Callable[[], float]) -> benchload.Meter:
            with benchload.Meter(tunnel.daemons) as meter:
                value = work()
            found[key] = Sample(value, meter.others_cores)
            return meter

        def run_tcp(key: str, streams: int = 1, *, reverse: bool = False) -> None:
            got_bytes = 0.0

            def work() -> float:
                nonlocal got_bytes
                gbit_s, got_bytes = benchload.tcp(one, two, there, seconds=seconds, streams=streams, reverse=reverse)
                return gbit_s

            meter = run(key, work)
            if key == "tcp1" and tunnel.daemons:
                found["cpu"] = Sample(meter.daemons_s / (got_bytes / 1e9), meter.others_cores)

        run("ping", lambda: benchload.flood_ping(one, there))
        run_tcp("tcp1")
        run_tcp("tcp1r", reverse=True)
        run_tcp("tcp4", 4)
        run_tcp("tcp16", 16)
        for size_bytes, rate in ((1200, "3G"), (200, "1G")):
            flood = partial(benchload.udp, one, two, there, seconds=seconds, size_bytes=size_bytes, rate=rate)
            run(f"udp{size_bytes}", flood)
        for key, processes in (("rss", tunnel.nodes), ("relay_rss", tunnel.relays)):
            if processes:
                found[key] = Sample(max(map(benchload.rss_mb, processes)))
    return found


def versions() -> dict[str, str]:
    """What runs here."""
    found = {"kernel": platform.release(), "processor": "unknown", "cores": str(os.cpu_count())}
    if match := re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()):
        found["processor"] = match.group(1)
    commands = {
        "buri": ["git", "-C", str(ROOT), "describe", "--always", "--dirty"],
        "tailscaled": [str(peer("tailscaled")), "--version"],
        "wireguard-go": [str(peer("wireguard-go")), "--version"],
        "iperf3": ["iperf3", "--version"],
    }
    for name, words in commands.items():
        try:
            said = subprocess.run(words, capture_output=True, text=True, check=False, timeout=10)
            found[name] = (said.stdout or said.stderr).strip().partition("\n")[0].partition("-ERR")[0]
        except OSError:
            found[name] = "missing"
    return found


def table(topology: str, results: dict[str, Samples]) -> list[list[str]]:
    """The rows of one topology that have a value."""
    made = rows(METRICS, results, BASE)
    made[0][0] = topology
    return [made[0], *(row for row in made[1:] if any(cell != "–" for cell in row[1:]))]


def chart(found: dict[str, dict[str, Samples]], about: dict[str, str], rounds: int) -> str:
    """The figures that a reader asks for first."""
    shown = (("direct", "tcp1"), ("direct", "cpu"), ("direct", "udp1200"), ("direct", "ping"), ("relay", "tcp1"))
    by_key = {metric.key: metric for metric in METRICS}
    panels = [
        Panel(
            f"{topology}: {by_key[key].heading}",
            by_key[key],
            {name: summarize(samples.get(key, ())) for name, samples in found[topology].items() if name != "bare"},
        )
        for topology, key in shown
        if topology in found
    ]
    footer = [
        f"{about['processor']}, {about['cores']} cores shared by both ends and the load generator, Linux {about['kernel']}, "
        "MTU 1280.",
        f"Medians and spread of {rounds} interleaved rounds. tailscaled {about['tailscaled']}, {about['wireguard-go']}.",
    ]
    return svg_chart("Buri beside its neighbours", panels, footer)


def save(
    found: dict[str, dict[str, Samples]], about: dict[str, str], load: list[float], options: argparse.Namespace
) -> None:
    """JSON, Markdown and SVG into the results directory."""
    options.results.mkdir(parents=True, exist_ok=True)
    report = {
        "about": about,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "load_average_before_each_run": load,
        "results": {
            topology: {
                name: {
                    key: [[round(one.value, 3), round(one.others_cores, 3)] for one in samples]
                    for key, samples in metrics.items()
                }
                for name, metrics in results.items()
            }
            for topology, results in found.items()
        },
    }
    (options.results / "tunnel.json").write_text(json.dumps(report, indent=1) + "\n")
    pages = "\n\n".join(markdown_table(table(topology, results)) for topology, results in found.items() if results)
    facts = ", ".join(f"{name} {what}" for name, what in about.items())
    (options.results / "tunnel.md").write_text(
        f"{pages}\n\nMedian (least–greatest) of {options.rounds} interleaved rounds of {options.seconds} s; × is the ratio to "
        f"{BASE}; * = other processes took more than 0.15 of a core in every round. {facts}.\n"
    )
    (options.results / "tunnel.svg").write_text(chart(found, about, options.rounds))


class Bench:
    """The rounds of one run, and what they found."""

    def __init__(self, options: argparse.Namespace, names: list[str], topologies: list[str]) -> None:
        self.options = options
        self.about = versions()
        self.found: dict[str, dict[str, Samples]] = {topology: {} for topology in topologies}
        self.load: list[float] = []
        self.failures = 0
        self._order = [
            (topology, name)
            for topology in topologies
            for name in names
            if topology != "relay" or name in contenders.BY_RELAY
        ]

    def run(self) -> None:
        """All rounds, a line printed for each run; what is known is saved after each round, for a run may be cut short."""
        with tempfile.TemporaryDirectory(prefix="buri-bench-") as directory:
            for number in range(1, self.options.rounds + 1):
                for topology, name in self._order:
                    self._one(f"round {number} {topology} {name}", topology, name, Path(directory))
                save(self.found, self.about, self.load, self.options)

    def _one(self, title: str, topology: str, name: str, directory: Path) -> None:
        self.load.append(round(os.getloadavg()[0], 2))
        began_s = time.monotonic()
        try:
            samples = measure(name, topology, self.options.seconds, directory)
        except BuriError as error:
            self.failures += 1
            print(f"{title} FAILED: {error}", file=sys.stderr, flush=True)
            return
        kept = self.found[topology].setdefault(name, defaultdict(list))
        for key, sample in samples.items():
            kept[key].append(sample)
        values = " ".join(f"{key} {one.value:.2f}{'' if one.quiet else '*'}" for key, one in samples.items())
        print(f"{title} ({time.monotonic() - began_s:.0f} s): {values}", flush=True)


def main() -> int:
    """Run the rounds, print a line each, then the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5, help="length of each iperf3 run")
    parser.add_argument("--only", default=",".join(contenders.CONTENDERS), help="contenders, with commas")
    parser.add_argument("--topologies", default=",".join(TOPOLOGIES), help="of these, with commas")
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="directory for tunnel.json, tunnel.md, tunnel.svg"
    )
    options = parser.parse_args()
    names, topologies = options.only.split(","), options.topologies.split(",")
    if unknown := [*({*names} - contenders.CONTENDERS.keys()), *({*topologies} - {*TOPOLOGIES})]:
        parser.error(f"there is no {', '.join(unknown)}")
    reason = why_not() or next((f"{tool} is missing." for tool in ("iperf3", "ethtool") if not which(tool)), None)
    if reason is not None:
        print(f"bench/tunnel.py cannot run here: {reason}", file=sys.stderr)
        return 3
    try:
        bench = Bench(options, names, topologies)
        bench.run()
    except BuriError as error:
        print(f"bench/tunnel.py: {error}", file=sys.stderr)
        return error.exit_code
    for topology, results in bench.found.items():
        if results:
            print("\n" + text_table(table(topology, results)))
    print(f"\nWritten to {options.results}. Load average before the runs: {min(bench.load)}–{max(bench.load)}.")
    return 1 if bench.failures else 0


if __name__ == "__main__":
    sys.exit(main())
