"""How a control server bears a tailnet: nodes with real Noise and HTTP/2 on loopback, against a fresh server without relay.

For each number of nodes: all join at once until all see all; one node's endpoint changes, over and over; one more node
joins, over and over; everyone hangs up and comes back at once. The server and the load program (one process) share this
machine, so the times are upper bounds. Usage: `python bench/control.py [--nodes 100,300,1000] [--changes 20]`; with
`--headscale 100,300` headscale (on PATH) bears the same beside `buri server`, for these numbers of nodes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from buri.core.addresses import AddrPort
from buri.core.errors import BuriError, SystemFault
from buri.testing import benchload
from buri.testing.benchreport import text_table
from buri.testing.controlservers import BuriControl, ControlServer, HeadscaleControl, running
from buri.testing.headscale import why_no_headscale
from buri.testing.loadnode import Frames, LoadNode, Server

Maker = Callable[[Path], ControlServer]

DIALS_AT_ONCE = 64  # in the ramp; a reconnect storm has no such manners
PATIENCE_S = 180.0
RETRY_S = 0.2
QUIET_S = 1.0
SPARE_FILES = 200


@dataclass
class Figures:
    """What one number of nodes gave. Times in ms or s as named, bytes as they came off the wire."""

    server: str
    nodes: int
    ramp_s: float
    ramp_cpu_s: float
    change_p50_ms: float
    change_p99_ms: float
    change_bytes: float
    join_p50_ms: float
    join_p99_ms: float
    join_bytes: float
    back_maps_s: float
    back_last_s: float
    back_cpu_s: float
    peak_rss_mb: float
    load_average: float
    others_cores: float


def percentile(values: Iterable[float], share: float) -> float:
    """The value that `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Crowd:
    """The nodes, and one event that tells of any news among them."""

    def __init__(self, server: Server, auth_key: str) -> None:
        self._server = server
        self._auth_key = auth_key
        self._frames = Frames()
        self._news = asyncio.Event()
        self.nodes: list[LoadNode] = []

    def add(self) -> LoadNode:
        """One more node, not yet connected."""
        node = LoadNode(len(self.nodes) + 1, self._server, os.urandom, self._frames)
        node.on_news = self._tell
        self.nodes.append(node)
        return node

    def _tell(self, _node: LoadNode) -> None:
        self._news.set()

    async def until(self, what: str, reached: Callable[[], bool]) -> None:
        """Wait for a state of the whole; raises SystemFault when it does not come."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not reached():
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                seen = [len(node.peers) for node in self.nodes]
                lost = sum(node.lost for node in self.nodes)
                raise SystemFault(
                    f"Waited {PATIENCE_S:g} s in vain for {what}: nodes see {min(seen)}–{max(seen)}, {lost} were lost."
                )
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), min(left_s, 1.0))

    async def join(self, node: LoadNode) -> None:
        """Connect, register, ask for maps; tries again when the server does not answer."""
        await self._connect(node)
        await node.register(self._auth_key)
        node.open_map()

    async def come_back(self, node: LoadNode) -> None:
        """Connect and ask for maps, as a registered node does."""
        await self._connect(node)
        node.open_map()

    @staticmethod
    async def _connect(node: LoadNode) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                await node.connect()
                return
            except (OSError, BuriError):
                if time.monotonic() > deadline_s:
                    raise
                await asyncio.sleep(RETRY_S)

    def all_see_all(self) -> bool:
        """Whether every node's map has shown every node."""
        return all(len(node.peers) >= len(self.nodes) for node in self.nodes)

    async def quiet(self) -> None:
        """Wait until nobody has heard anything for a while."""
        with contextlib.suppress(TimeoutError):
            while True:
                self._news.clear()
                await asyncio.wait_for(self._news.wait(), QUIET_S)

    async def spread(self, needle: bytes, hearers: list[LoadNode], work: Coroutine[None, None, None]) -> list[float]:
        """Do something that every hearer will be told; how long each took, in ms."""
        for node in hearers:
            node.watch, node.seen_s = needle, 0.0
        began_s = time.monotonic()
        task = asyncio.create_task(work)
        await self.until(f"news of {needle!r}", lambda: all(node.seen_s for node in hearers))
        await task
        return [(node.seen_s - began_s) * 1e3 for node in hearers]


async def measure(make: Maker, nodes: int, changes: int) -> Figures:
    """All phases with one number of nodes."""
    async with running(make) as (control, server, auth_key):
        crowd = Crowd(server, auth_key)
        load_average = os.getloadavg()[0]
        began_s, busy_s, own_s, cpu_s = time.monotonic(), benchload.busy_s(), benchload.own_s(), control.cpu_s()
        gate = asyncio.Semaphore(DIALS_AT_ONCE)

        async def enter(node: LoadNode) -> None:
            async with gate:
                await crowd.join(node)

        await asyncio.gather(*(enter(crowd.add()) for _ in range(nodes)))
        await crowd.until("all to see all", crowd.all_see_all)
        ramp_s = time.monotonic() - began_s
        await crowd.quiet()
        ramp_cpu_s = control.cpu_s() - cpu_s

        change_ms, change_bytes = await _changes(crowd, changes)
        join_ms, join_bytes = await _joins(crowd, max(2, changes // 4))

        cpu_before_s = control.cpu_s()
        for node in crowd.nodes:
            node.close()
        back_s = time.monotonic()
        await asyncio.gather(*(crowd.come_back(node) for node in crowd.nodes))
        await crowd.until("all to be back", crowd.all_see_all)
        back_maps_s = time.monotonic() - back_s
        await crowd.quiet()
        strangers_s = (
            benchload.busy_s() - busy_s - (benchload.own_s() - own_s) - (control.cpu_s() - cpu_s)
        )  # whatever else ran here
        figures = Figures(
            server=control.name,
            nodes=nodes,
            ramp_s=ramp_s,
            ramp_cpu_s=ramp_cpu_s,
            change_p50_ms=statistics.median(change_ms),
            change_p99_ms=percentile(change_ms, 0.99),
            change_bytes=change_bytes,
            join_p50_ms=statistics.median(join_ms),
            join_p99_ms=percentile(join_ms, 0.99),
            join_bytes=join_bytes,
            back_maps_s=back_maps_s,
            back_last_s=max(node.last_s for node in crowd.nodes) - back_s,
            back_cpu_s=control.cpu_s() - cpu_before_s,
            peak_rss_mb=control.peak_rss_mb(),
            load_average=load_average,
            others_cores=max(0.0, strangers_s / (time.monotonic() - began_s)),
        )
        for node in crowd.nodes:
            node.close()
        return figures


async def _changes(crowd: Crowd, count: int) -> tuple[list[float], float]:
    """One node moves, `count` times: times to each other node, and bytes a node for one change."""
    mover, others = crowd.nodes[0], crowd.nodes[1:]
    times_ms: list[float] = []
    before = sum(node.received_bytes for node in others)
    for number in range(count):
        endpoint = AddrPort(ip_address("198.51.100.1"), 20000 + number)
        times_ms += await crowd.spread(
            f'"{endpoint}"'.encode(),
            others,
            mover.tell_endpoint(endpoint),
        )
    await crowd.quiet()
    return times_ms, (sum(node.received_bytes for node in others) - before) / count / len(others)


async def _joins(crowd: Crowd, count: int) -> tuple[list[float], float]:
    """New nodes join, one after the other: times from the dial to each older node, and bytes a node for one join."""
    times_ms: list[float] = []
    others = list(crowd.nodes)
    before = sum(node.received_bytes for node in others)
    for _ in range(count):
        newcomer = crowd.add()
        times_ms += await crowd.spread(
            str(newcomer.key).encode(),
            others,
            crowd.join(newcomer),
        )
        await crowd.until("all to see all", crowd.all_see_all)
        await crowd.quiet()
    return times_ms, (sum(node.received_bytes for node in others) - before) / count / len(others)


HEADINGS = (
    "server", "nodes", "all see all, s", "server CPU-s", "change p50 / p99, ms", "bytes a node", "join p50 / p99, ms",
    "bytes a node", "all back: maps / last, s", "server CPU-s", "peak RSS, MB", "load average", "others, cores",
)  # fmt: skip


def row(one: Figures) -> list[str]:
    """A line of the table."""
    return [
        one.server,
        str(one.nodes),
        f"{one.ramp_s:.1f}",
        f"{one.ramp_cpu_s:.1f}",
        f"{one.change_p50_ms:.0f} / {one.change_p99_ms:.0f}",
        f"{one.change_bytes:.0f}",
        f"{one.join_p50_ms:.0f} / {one.join_p99_ms:.0f}",
        f"{one.join_bytes:.0f}",
        f"{one.back_maps_s:.1f} / {one.back_last_s:.1f}",
        f"{one.back_cpu_s:.1f}",
        f"{one.peak_rss_mb:.0f}",
        f"{one.load_average:.1f}",
        f"{one.others_cores:.2f}",
    ]


def main() -> int:
    """Measure each number of nodes, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", default="100,300,1000", help="numbers of nodes, with commas")
    parser.add_argument("--headscale", default="", help="numbers of nodes for headscale as well, with commas")
    parser.add_argument("--changes", type=int, default=20, help="endpoint changes; a quarter as many joins")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    options = parser.parse_args()
    tasks: list[tuple[Maker, int]] = [(BuriControl, int(word)) for word in options.nodes.split(",")]
    if options.headscale and (reason := why_no_headscale()) is not None:
        print(f"bench/control.py: {reason}", file=sys.stderr)
        return 1
    tasks += [(HeadscaleControl, int(word)) for word in options.headscale.split(",") if word]
    found: list[Figures] = []
    try:
        for make, number in sorted(tasks, key=lambda task: task[1]):
            _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
            if most != resource.RLIM_INFINITY and most < number + SPARE_FILES:
                raise SystemFault(f"{number} nodes need {number + SPARE_FILES} open files, {most} are allowed.")
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
            found.append(asyncio.run(measure(make, number, options.changes)))
            print(", ".join(f"{name} {cell}" for name, cell in zip(HEADINGS, row(found[-1]), strict=True)), flush=True)
    except BuriError as error:
        print(f"bench/control.py: {error}", file=sys.stderr)
        return error.exit_code
    print("\n" + text_table([[*HEADINGS], *map(row, found)]))
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
