"""Ends: logout, shortened and administered key expiry, and what is due at a moment."""

from __future__ import annotations

import msgspec

from buri.control.edit import Edit
from buri.control.snapshot import NodeRecord, Snapshot
from buri.core.errors import ConfigError, StateError
from buri.wire.tailcfg.base import LAST_S


def log_out(snapshot: Snapshot, node: NodeRecord, now_s: float) -> Edit:
    """The node's key ends now; an ephemeral node goes altogether."""
    edit = Edit(snapshot)
    if node.ephemeral:
        edit.remove_node(node.id)
    else:
        # One second back: "expired" must hold at this very moment, for us and for peers with a coarser clock.
        edit.put_node(msgspec.structs.replace(node, expiry_s=now_s - 1, last_seen_s=now_s), now_s)
    return edit


def shorten(snapshot: Snapshot, node: NodeRecord, expiry_s: float, now_s: float) -> Edit:
    """A node may bring its own expiry nearer, never push it away."""
    edit = Edit(snapshot)
    if node.expiry_s == 0 or expiry_s < node.expiry_s:
        edit.put_node(msgspec.structs.replace(node, expiry_s=expiry_s), now_s)
    return edit


def set_expiry(snapshot: Snapshot, node: NodeRecord, expiry_s: float, now_s: float) -> Edit:
    """An administrator's word: a time, or 0 for never. A later time revives an expired node without a login."""
    edit = Edit(snapshot)
    edit.put_node(msgspec.structs.replace(node, expiry_s=expiry_s), now_s)
    return edit


def enabled_expiry_s(node: NodeRecord, key_expiry_s: float, now_s: float) -> float:
    """When a key ends that is to expire again: the tailnet's lifetime from now; an end it has already stays.

    Raises StateError where keys do not expire by themselves: of a tagged node, or in a tailnet that lets none expire.
    """
    if node.expiry_s:
        return node.expiry_s
    if node.tags:
        raise StateError(f"{node.name} is tagged: keys of tagged machines do not expire.")
    if not key_expiry_s:
        raise StateError("Keys do not expire in this tailnet.", remedy=f"Give an end: expiry extend {node.name} 90d.")
    return now_s + key_expiry_s


def extended_expiry_s(node: NodeRecord, by_s: float, now_s: float) -> float:
    """When a key ends that lasts `by_s` longer than it would, or than now when it has ended or never would."""
    return max(node.expiry_s, now_s) + by_s


def check_end(at_s: float) -> float:
    """A time that can be written down. Raises ConfigError."""
    if not 0 <= at_s <= LAST_S:
        raise ConfigError("That end lies past the year 9999.", remedy="For a key without an end say never.")
    return at_s


def next_expiry_s(snapshot: Snapshot, now_s: float) -> float | None:
    """When the next key still good at `now_s` ends; None when none will."""
    return min((node.expiry_s for node in snapshot.nodes.values() if node.expiry_s > now_s), default=None)


def expired_between(snapshot: Snapshot, after_s: float, until_s: float) -> list[NodeRecord]:
    """Nodes whose key ended in (after, until]."""
    return [node for node in snapshot.nodes.values() if after_s < node.expiry_s <= until_s]
