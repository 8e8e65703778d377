"""The fake engine's packet filter and headers: the same answers as the binary's, a packet at a time (wire 1f)."""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv4Address, IPv6Address

import msgspec

from buri.core.addresses import IPAddress
from buri.engine.port import SetFilter

_TCP, _UDP, _SCTP, _ICMP, _ICMPV6 = 6, 17, 132, 1, 58
_PORTED = (_TCP, _UDP, _SCTP)
_TCP_SYN, _TCP_ACK = 0x02, 0x10
_ICMP_ANSWERS = (0, 3, 11, 12)
_ICMPV6_ANSWERS = (1, 2, 3, 4, 129)
_MAX_FLOWS = 4096


class InnerPacket(msgspec.Struct, frozen=True):
    """What the fake needs of an IP header; ports are 0 where the protocol has none."""

    source: IPAddress
    destination: IPAddress
    protocol: int
    source_port: int
    destination_port: int
    opens_flow: bool


def read_header(packet: bytes) -> InnerPacket | None:
    """The addresses, protocol and ports of an IP packet; None when it is none."""
    if len(packet) >= 20 and packet[0] >> 4 == 4:
        source: IPAddress = IPv4Address(packet[12:16])
        destination: IPAddress = IPv4Address(packet[16:20])
        protocol, body = packet[9], packet[(packet[0] & 15) * 4 :]
    elif len(packet) >= 40 and packet[0] >> 4 == 6:
        source, destination = IPv6Address(packet[8:24]), IPv6Address(packet[24:40])
        protocol, body = packet[6], packet[40:]
    else:
        return None
    ports = (0, 0)
    opens = True
    if protocol in _PORTED:
        if len(body) < 4:
            return None
        ports = (int.from_bytes(body[:2], "big"), int.from_bytes(body[2:4], "big"))
        if protocol == _TCP and len(body) > 13:
            opens = body[13] & (_TCP_SYN | _TCP_ACK) == _TCP_SYN
    elif protocol == _ICMP:
        opens = not body or body[0] not in _ICMP_ANSWERS
    elif protocol == _ICMPV6:
        opens = not body or body[0] not in _ICMPV6_ANSWERS
    return InnerPacket(source, destination, protocol, *ports, opens)


class FakeFilter:
    """Inbound rules, and the flows we opened ourselves. Without a `SetFilter` nothing new comes in."""

    def __init__(self) -> None:
        self._table = SetFilter(local=(), rules=())
        self._flows: OrderedDict[tuple[object, ...], None] = OrderedDict()

    def set(self, table: SetFilter) -> None:
        self._table = table

    def note_sent(self, packet: InnerPacket) -> None:
        """Remember a flow that we opened, so that its answers pass."""
        if packet.protocol not in (_UDP, _SCTP):
            return
        key = (packet.protocol, packet.source, packet.source_port, packet.destination, packet.destination_port)
        self._flows[key] = None
        self._flows.move_to_end(key)
        if len(self._flows) > _MAX_FLOWS:
            self._flows.popitem(last=False)

    def refusal(self, packet: InnerPacket) -> str | None:
        """Why an inbound packet may not reach this host, as the binary's counters name it; None when it may."""
        if not any(packet.destination in prefix for prefix in self._table.local):
            return "drop_in_filter_not_local"
        return None if self._allows(packet) else "drop_in_filter_no_rule"

    def _allows(self, packet: InnerPacket) -> bool:
        if packet.protocol in (_TCP, _ICMP, _ICMPV6) and not packet.opens_flow:
            return True
        back = (packet.protocol, packet.destination, packet.destination_port, packet.source, packet.source_port)
        if back in self._flows:
            return True
        if self._table.shields_up:
            return False
        return any(
            packet.protocol in rule.protocols
            and any(packet.source in prefix for prefix in rule.sources)
            and any(packet.destination in prefix for prefix in rule.destinations)
            and (
                packet.protocol not in _PORTED
                or any(ports.first <= packet.destination_port <= ports.last for ports in rule.ports)
            )
            for rule in self._table.rules
        )
