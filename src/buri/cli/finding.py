"""Finding a node by what a person types: a name, a DNS name, an address."""

from __future__ import annotations

import ipaddress
import socket

from buri.cli.context import fail
from buri.cli.render.names import short_name
from buri.wire.localapi import PeerStatus, Status


def find_address(status: Status, text: str) -> tuple[str, bool]:
    """The tailnet address meant by `text`, and whether it is this node's own by name; ends with a sentence if none."""
    try:
        return str(ipaddress.ip_address(text)), False
    except ValueError:
        pass
    for peer in (status.peer or {}).values():
        if _is_called(status, peer, text):
            if not peer.tailscale_ips:
                fail("node found but lacks an IP.")
            return peer.tailscale_ips[0], False
    if _is_called(status, status.self_node, text) and status.self_node.tailscale_ips:
        return status.self_node.tailscale_ips[0], True
    try:
        return str(socket.getaddrinfo(text, None, type=socket.SOCK_STREAM)[0][4][0]), False
    except (OSError, UnicodeError):
        fail(f'No node is called "{text}", and no DNS server knows the name.', 'See the names with "buri status".')


def node_with(status: Status, address: str) -> PeerStatus | None:
    """The node, this one included, that has an address."""
    nodes = [*(status.peer or {}).values(), status.self_node]
    return next((node for node in nodes if address in (node.tailscale_ips or ())), None)


def _is_called(status: Status, node: PeerStatus, text: str) -> bool:
    full = node.dns_name.rstrip(".")
    return text.lower() in {short_name(status, node).lower(), full.lower(), node.dns_name.lower()} - {""}
