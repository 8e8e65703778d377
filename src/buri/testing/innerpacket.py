"""Inner packets for simulated tailnets: IPv4 UDP, checksums left zero (nothing in the simulator checks them)."""

from __future__ import annotations

from ipaddress import IPv4Address

_IPV4_HEADER_BYTES = 20
_UDP_HEADER_BYTES = 8


def build_udp(source: IPv4Address, source_port: int, destination: IPv4Address, port: int, payload: bytes) -> bytes:
    """One IPv4 UDP packet."""
    length = _UDP_HEADER_BYTES + len(payload)
    udp = source_port.to_bytes(2, "big") + port.to_bytes(2, "big") + length.to_bytes(2, "big") + bytes(2)
    head = b"\x45\x00" + (_IPV4_HEADER_BYTES + length).to_bytes(2, "big") + bytes(4) + b"\x40\x11" + bytes(2)
    return head + source.packed + destination.packed + udp + payload


def parse_udp(packet: bytes) -> tuple[IPv4Address, int, int, bytes]:
    """(source, source port, destination port, payload) of what `build_udp` built."""
    udp = packet[_IPV4_HEADER_BYTES:]
    return (
        IPv4Address(packet[12:16]),
        int.from_bytes(udp[:2], "big"),
        int.from_bytes(udp[2:4], "big"),
        udp[_UDP_HEADER_BYTES:],
    )
