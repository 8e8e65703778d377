"""Who reaches whom in the lab: listeners on many ports, knocks at many doors at once, and a watch over one door."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

from buri.testing.lab import Host, Process

_DOORS = """
import socket, sys, threading
def serve(door):
    while True:
        c, _ = door.accept()
        with c: c.sendall(b"in")
for address in sys.argv[1].split(","):
    for port in map(int, sys.argv[2].split(",")):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        door = socket.create_server((address, port), family=family)
        threading.Thread(target=serve, args=(door,), daemon=True).start()
print("ready", flush=True)
threading.Event().wait()
"""
_KNOCK = """
import json, socket, sys, threading
timeout_s, doors = float(sys.argv[1]), json.loads(sys.argv[2])
opened = {}
def knock(address, port):
    try:
        with socket.create_connection((address, port), timeout=timeout_s) as c:
            c.settimeout(timeout_s)
            opened[address, port] = c.recv(2) == b"in"
    except OSError:
        opened[address, port] = False
threads = [threading.Thread(target=knock, args=door) for door in doors]
for one in threads: one.start()
for one in threads: one.join()
print(json.dumps([[a, p] for (a, p), is_open in opened.items() if is_open]))
"""
_WATCH = """
import selectors, socket, sys, time
address, port = sys.argv[1], int(sys.argv[2])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
state = None
while True:
    began = time.monotonic()
    try:
        with socket.socket(family) as s:
            s.settimeout(0.25)
            s.connect((address, port))
            s.settimeout(1)
            now = "open" if s.recv(2) == b"in" else "shut"
    except OSError:
        now = "shut"
    if now != state:
        state = now
        print(state, repr(time.monotonic()), flush=True)
    time.sleep(max(0, began + 0.05 - time.monotonic()))
"""


class Door(NamedTuple):
    """A TCP port of an address."""

    address: str
    port: int


def open_doors(host: Host, addresses: Iterable[str], ports: Iterable[int]) -> Process:
    """Listen on each port of each address; whoever gets in is told so."""
    words = (",".join(addresses), ",".join(map(str, ports)))
    process = host.start("doors", sys.executable, "-c", _DOORS, *words)
    process.expect("ready")
    return process


def knock(host: Host, doors: Sequence[Door], *, timeout_s: float = 1.5) -> set[Door]:
    """Try all doors at once; those that opened."""
    text = json.dumps([list(door) for door in doors])
    done = host.run(sys.executable, "-c", _KNOCK, str(timeout_s), text)
    return {Door(address, port) for address, port in json.loads(done.stdout)}


class Watch:
    """Knocks at one door twenty times a second for as long as the `with` block lasts."""

    def __init__(self, host: Host, door: Door) -> None:
        name = f"watch-{door.port}-{6 if ':' in door.address else 4}"
        self._process = host.start(name, sys.executable, "-c", _WATCH, door.address, str(door.port))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stop()

    def becomes(self, state: str, *, timeout_s: float = 10.0) -> float:
        """Wait until it is "open" or "shut" (it may be so already); when that began, by CLOCK_MONOTONIC."""
        lines = self._process.lines
        start = len(lines) - 1 if lines and lines[-1].startswith(state) else len(lines)
        found: re.Match[str] = self._process.expect(rf"^{state} (\S+)$", timeout_s=timeout_s, start=start)
        return float(found.group(1))
