"""The table of `buri status`: Tailscale's words and columns, and in brackets why a peer is reached by a relay."""

from __future__ import annotations

from buri.cli.render.columns import columns
from buri.cli.render.names import first_address, owner, short_name
from buri.core.keyexpiry import in_words
from buri.core.plaintext import plain
from buri.wire.localapi import PeerStatus, Status
from buri.wire.tailcfg.base import parse_time

HEADER: list[tuple[str, ...]] = [
    ("IP", "Hostname", "Owner", "OS", "Status"),
    ("--", "--------", "-----", "--", "------"),
]


def render_status(
    status: Status, wall_s: float, *, this: bool = True, peers: bool = True, active: bool = False, header: bool = False
) -> str:
    """The whole table, `this` node first, and the health messages; ends with a newline unless empty."""
    rows = list(HEADER) if header else []
    if this:
        rows.append(_row(status, status.self_node, wall_s))
    if peers:
        shown = (peer for peer in (status.peer or {}).values() if not peer.sharee_node)
        rows += [_row(status, peer, wall_s) for peer in sorted(shown, key=_sort_key) if peer.active or not active]
    lines = columns(rows)
    if this and status.self_node.in_network_map:
        lines += ["", f"# Key expiry: {_key_expiry(status.self_node, wall_s)}"]
    if status.health:
        lines += ["", *render_health(status.health)]
    return "".join(f"{line}\n" for line in lines)


def render_health(messages: list[str]) -> list[str]:
    """What is wrong with this node, a line each."""
    return ["# Health check:", *(f"#     - {plain(message)}" for message in messages)]


def how_reached(node: PeerStatus, wall_s: float) -> str:
    """The last column: `active; direct 1.2.3.4:41641, tx 1234 rx 5678`."""
    traffic = f", tx {node.tx_bytes} rx {node.rx_bytes}" if node.tx_bytes or node.rx_bytes else ""
    seen = _last_seen(node.last_seen, wall_s)
    offline = "" if node.online else f"; offline{seen}"
    exit_node = "exit node" if node.exit_node else "offers exit node" if node.exit_node_option else ""
    if node.active:
        return f"active; {exit_node + '; ' if exit_node else ''}{_path(node)}{offline}{traffic}"
    if exit_node:
        return f"idle; {exit_node}{offline}{traffic}"
    if traffic:
        return f"idle{offline}{traffic}"
    return "-" if node.online else f"offline{seen}"


def _path(node: PeerStatus) -> str:
    why = f" ({node.why_relayed})" if node.why_relayed else ""
    if node.cur_addr:
        return f"direct {node.cur_addr}"
    if node.peer_relay:
        return f"peer-relay {node.peer_relay}{why}"
    return f'relay "{node.relay}"{why}' if node.relay else ""


def _key_expiry(node: PeerStatus, wall_s: float) -> str:
    try:
        return in_words(parse_time(node.key_expiry or ""), wall_s)
    except ValueError:
        return f"not a time: {node.key_expiry}"


def _row(status: Status, node: PeerStatus, wall_s: float) -> tuple[str, ...]:
    name, who = short_name(status, node), owner(status, node)
    return first_address(node), name, who, node.os, how_reached(node, wall_s)


def _sort_key(node: PeerStatus) -> str:
    return node.dns_name or node.host_name or first_address(node) or node.id


def _last_seen(text: str, wall_s: float) -> str:
    try:
        seen_s = parse_time(text)
    except ValueError:
        return ""
    if seen_s == 0:
        return ""
    minutes = max(int((wall_s - seen_s) / 60), 1)
    if minutes < 60:
        return f", last seen {minutes}m ago"
    if minutes < 24 * 60:
        return f", last seen {minutes // 60}h ago"
    return f", last seen {minutes // (24 * 60)}d ago"
