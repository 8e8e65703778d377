"""The packet filter on the wire (upstream: tailscale `tailcfg.FilterRule`; wire reference 1a)."""

from __future__ import annotations

from typing import Any

from buri.wire.tailcfg.base import Wire, go


class PortRange(Wire, omit_defaults=False):
    first: int = go("First", 0)
    last: int = go("Last", 0)


class NetPortRange(Wire):
    ip: str = go("IP", "")
    ports: PortRange = go("Ports", factory=PortRange)


class CapGrant(Wire):
    dsts: list[str] | None = go("Dsts", None)
    caps: list[str] | None = go("Caps", None)
    cap_map: dict[str, list[Any] | None] | None = go("CapMap", None)


class FilterRule(Wire):
    """Accept `src_ips` (IP, CIDR, "a-b", "*", "cap:…") to `dst_ports`; `ip_proto` empty = TCP, UDP, ICMPv4, ICMPv6."""

    src_ips: list[str] | None = go("SrcIPs", None)
    dst_ports: list[NetPortRange] | None = go("DstPorts", None)
    ip_proto: list[int] | None = go("IPProto", None)
    cap_grant: list[CapGrant] | None = go("CapGrant", None)


ALLOW_ALL = FilterRule(src_ips=["*"], dst_ports=[NetPortRange(ip="*", ports=PortRange(first=0, last=65535))])
