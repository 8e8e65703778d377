"""Two hosts of the lab, an engine in each, fixed keys and paths between them."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from buri.core.keys import NodePrivate
from buri.testing.lab import Host, Lab, Process

PROGRAM = Path(__file__).with_name("engineprogram.py")
SOURCES = Path(__file__).resolve().parents[2]

ALL_OFF = {"tun_tso": False, "tun_uso": False, "tun_gro": False, "udp_gso": False, "udp_gro": False}


@dataclass
class Side:
    """One end: a host, its key, and its addresses inside the tunnel."""

    host: Host
    private: NodePrivate
    number: int

    @property
    def ipv4(self) -> str:
        return f"100.64.0.{self.number}"

    @property
    def ipv6(self) -> str:
        return f"fd7a:115c:a1e0::{self.number}"

    @property
    def allowed(self) -> list[str]:
        return [f"{self.ipv4}/32", f"{self.ipv6}/128"]

    def config(self, peer: Side, **changes: Any) -> dict[str, Any]:
        """What engineprogram reads: a direct IPv4 path to `peer` unless `changes` say otherwise."""
        way = {"udp": f"{peer.host.address}:41641"} | changes.pop("way", {})
        return {
            "private": self.private.raw.hex(),
            "tun": f"io{self.number}",
            "addresses": [f"{self.ipv4}/10", f"{self.ipv6}/48"],
            "local": self.allowed,
            "peers": [{"key": peer.private.public().raw.hex(), "allowed": peer.allowed, **way}],
            **changes,
        }

    def start(self, config: dict[str, Any]) -> Process:
        path = self.host.directory / "engine.json"
        path.write_text(json.dumps(config))
        process = self.host.start("engine", sys.executable, PROGRAM, path, env={"PYTHONPATH": str(SOURCES)})
        process.expect("^ready$")
        return process


def two_sides(lab: Lab) -> tuple[Side, Side]:
    """Two public hosts with keys, nothing started yet."""
    return (
        Side(lab.public_host("one", number=1), NodePrivate.from_entropy(bytes([1] * 32)), 1),
        Side(lab.public_host("two", number=2), NodePrivate.from_entropy(bytes([2] * 32)), 2),
    )


def counters(process: Process) -> dict[str, int]:
    """End an engineprogram in order, and read the counters it leaves."""
    process.stop()
    found: dict[str, int] = json.loads(process.expect("^counters (.*)$").group(1))
    return found
