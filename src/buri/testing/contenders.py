"""The tunnels that `bench/tunnel.py` sets side by side: each puts two nodes on a small internet and says how to reach them.

Control servers run outside the measured daemons; a relay counts among them, for its work is part of the way.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from buri.testing.enginelab import two_sides
from buri.testing.lab import PRIVATE_SERVER, Host, Lab, LabError, Process
from buri.testing.ourpeers import Burid, BuriServer
from buri.testing.realpeers import Tailscaled, TestControl, direct_line, start_derper
from buri.testing.wireguardgo import start_wireguard_go

_WIRE = ("tso", "off", "gso", "off", "tx-udp-segmentation", "off", "gro", "on")
_NO_UDP = """table inet bench {
  chain in { type filter hook input priority 0
    iifname eth0 meta l4proto 17 drop
  }
  chain out { type filter hook output priority 0
    oifname eth0 meta l4proto 17 drop
  }
}
"""


@dataclass
class Tunnel:
    """Two hosts with a way between them. `daemons` are all whose processor time the way costs, `nodes` the two ends."""

    one: Host
    two: Host
    address_one: str
    address_two: str
    nodes: list[Process] = field(default_factory=list)
    relays: list[Process] = field(default_factory=list)

    @property
    def daemons(self) -> list[Process]:
        return [*self.nodes, *self.relays]


Node = Burid | Tailscaled
Maker = Callable[[Lab, str], Tunnel]


def lay_out(lab: Lab, topology: str) -> tuple[Host, Host, Host]:
    """A server and two nodes on one bridge. `direct`: as veth is; `wire`: packets really cut; `relay`: no UDP at all."""
    server = lab.public_host("server", number=9, private=PRIVATE_SERVER)
    one, two = (lab.public_host(name, number=number) for name, number in (("one", 1), ("two", 2)))
    for host in (one, two):
        host.ip("route", "add", f"{PRIVATE_SERVER}/32", "via", server.address)
        if topology == "wire":
            host.run("ethtool", "-K", "eth0", *_WIRE)
            lab.core.run("ethtool", "-K", f"p-{host.name}", *_WIRE)
        if topology == "relay":
            host.nft(_NO_UDP)
    return server, one, two


def _joined(topology: str, first: Node, second: Node, url: str, keys: tuple[str, str], relays: list[Process]) -> Tunnel:
    for node, key in zip((first, second), keys, strict=True):
        node.up(url, key)
    tunnel = Tunnel(first.host, second.host, first.address(), second.address(), [first.process, second.process], relays)
    lines = first.ping(tunnel.address_two, until_direct=topology != "relay", count=20 if topology != "relay" else 3)
    if topology != "relay":
        direct_line(lines)
    elif not any("via DERP(" in line for line in lines):
        raise LabError("no pong came by the relay:\n" + "\n".join(lines))
    return tunnel


def buri(lab: Lab, topology: str) -> Tunnel:
    """Two `burid` on a `buri server`, which relays for them when nothing else can."""
    host, one, two = lay_out(lab, topology)
    server = BuriServer(host)
    key = server.auth_key()
    relays = [server.process] if topology == "relay" else []
    return _joined(topology, Burid(one), Burid(two), server.url, (key, key), relays)


def tailscale(lab: Lab, topology: str) -> Tunnel:
    """Two `tailscaled` on Tailscale's control server for tests, with `derper` as relay."""
    return _with_testcontrol(lab, topology, Tailscaled, Tailscaled)


def buri_to_tailscale(lab: Lab, topology: str) -> Tunnel:
    """A `burid` and a `tailscaled` of one tailnet."""
    return _with_testcontrol(lab, topology, Burid, Tailscaled)


def _with_testcontrol(lab: Lab, topology: str, first: Callable[[Host], Node], second: Callable[[Host], Node]) -> Tunnel:
    host, one, two = lay_out(lab, topology)
    derper, derp_map = start_derper(host)
    control = TestControl(host, PRIVATE_SERVER, derp_map)
    relays = [derper] if topology == "relay" else []
    keys = ("tskey-auth-one", "tskey-auth-two")
    return _joined(topology, first(one), second(two), control.url, keys, relays)


def wireguard_go(lab: Lab, topology: str) -> Tunnel:
    """WireGuard's own userspace implementation, MTU 1280 as the others."""
    one, two = two_sides(lab)
    if topology == "wire":
        for side in (one, two):
            side.host.run("ethtool", "-K", "eth0", *_WIRE)
            lab.core.run("ethtool", "-K", f"p-{side.host.name}", *_WIRE)
    nodes = [start_wireguard_go(side, other) for side, other in ((one, two), (two, one))]
    one.host.run("ping", "-c2", "-i0.2", "-W3", two.ipv4)
    return Tunnel(one.host, two.host, one.ipv4, two.ipv4, nodes)


def bare(lab: Lab, topology: str) -> Tunnel:
    """No tunnel at all: what the links and the load generator can do."""
    _, one, two = lay_out(lab, topology)
    return Tunnel(one, two, one.address, two.address)


CONTENDERS: dict[str, Maker] = {
    "buri": buri,
    "tailscaled": tailscale,
    "buri-tailscaled": buri_to_tailscale,
    "wireguard-go": wireguard_go,
    "bare": bare,
}
BY_RELAY = ("buri", "tailscaled", "buri-tailscaled")
_numbers = itertools.count()


def open_lab(directory: Path) -> Lab:
    """A fresh small internet in a directory of its own, so that no contender inherits another's files."""
    return Lab(directory / f"lab{next(_numbers)}")
