"""What goes wrong with networks, done to a lab: loss, reordering, short packets only, cables out, addresses that change.

Loss and reordering judge single packets, so the offloads that carry many as one are switched off first (`wire`).
"""

from __future__ import annotations

from collections.abc import Sequence

from buri.testing.lab import Home, Host, Lab

_WIRE = ("tso", "off", "gso", "off", "tx-udp-segmentation", "off", "gro", "off")
_QUIET = """
table inet quiet
delete table inet quiet
table inet quiet {
  chain out { type filter hook output priority filter
    icmp type destination-unreachable drop
    icmpv6 type packet-too-big drop
  }
}
"""


def home_port(home: Home) -> str:
    """The core's interface towards a home."""
    return f"p-{home.router.name.removesuffix('-router')}"[:15]


def wire(host: Host) -> None:
    """Make a host send its packets one by one, as a real network card does in the end."""
    host.run("ethtool", "-K", "eth0", *_WIRE)


def lose(home: Home, percent: int) -> None:
    """Lose that share of everything a home sends and gets (0: none)."""
    drop = f"numgen random mod 100 < {percent} drop" if percent else ""
    home.router.nft(
        "table inet lossy\ndelete table inet lossy\n"
        f"table inet lossy {{\n chain forward {{ type filter hook forward priority -200\n {drop}\n }}\n}}\n"
    )


def reorder(home: Home, percent: int, rate: str = "60mbit") -> None:
    """Send that share of a home's packets by a slow lane: they arrive some milliseconds late, behind later ones."""
    tc = ("tc", "class", "replace", "dev", "wan", "parent", "1:", "classid")
    home.router.run("tc", "qdisc", "replace", "dev", "wan", "root", "handle", "1:", "htb", "default", "10")
    home.router.run(*tc, "1:10", "htb", "rate", rate, "burst", "16k", "quantum", "1514")
    home.router.run(*tc, "1:20", "htb", "rate", "3400kbit", "burst", "1400", "quantum", "1514")
    home.router.nft(
        "table inet lanes {\n chain post { type filter hook postrouting priority 300\n"
        f" oifname wan numgen random mod 100 < {percent} meta priority set 1:20\n }}\n}}\n"
    )


def narrow(lab: Lab, homes: Sequence[Home], mtu: int, *, icmp: bool) -> None:
    """Give homes' links another MTU; without `icmp` nobody is told of packets that are too long."""
    for host in (lab.core, *(home.router for home in homes)):
        if icmp:
            host.run("nft", "delete", "table", "inet", "quiet", check=False)
        else:
            host.nft(_QUIET)
    for home in homes:
        home.router.ip("link", "set", "wan", "mtu", str(mtu))
        lab.core.ip("link", "set", home_port(home), "mtu", str(mtu))


def eat_fragments(home: Home, *, on: bool) -> None:
    """Drop long datagrams as whole and as fragments (the router sees them put together)."""
    drop = "meta l4proto 17 meta length > 1300 drop" if on else ""
    home.router.nft(
        "table inet eater\ndelete table inet eater\n"
        f"table inet eater {{\n chain forward {{ type filter hook forward priority -200\n {drop}\n }}\n}}\n"
    )


def cable(home: Home, host: Host, *, plugged: bool) -> None:
    """Pull a host's cable or plug it in: its interface loses its carrier and keeps its addresses."""
    home.router.ip("link", "set", f"h-{host.name}"[:15], "up" if plugged else "down")


def renumber(home: Home, host: Host, number: int) -> None:
    """Give a host another address in its home's network; the old one is gone."""
    host.ip("addr", "flush", "dev", "eth0")
    host.address = f"192.168.{home.number}.{number}"
    host.ip("addr", "add", f"{host.address}/24", "dev", "eth0")
    host.ip("route", "add", "default", "via", f"192.168.{home.number}.1")


def move(old: Home, new: Home, host: Host) -> None:
    """Take a host to another home: another interface, another address, another NAT."""
    old.router.ip("link", "del", f"h-{host.name}"[:15])
    old.hosts.remove(host)
    new.hosts.append(host)
    port = f"h-{host.name}"[:15]
    new.router.ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(host.pid))
    new.router.ip("link", "set", port, "master", "lan", "up")
    host.ip("link", "set", "eth0", "up")
    host.address = f"192.168.{new.number}.{30 + len(new.hosts)}"
    host.ip("addr", "add", f"{host.address}/24", "dev", "eth0")
    host.ip("route", "add", "default", "via", f"192.168.{new.number}.1")
