"""Who sees whom. The one place that decides it; a policy takes over here.

Today every node of the tailnet sees every other, save that a node whose own standing is bad (key expired, not yet
authorized) sees nobody, and a node that is not authorized is seen by nobody. An expired peer stays visible, marked.
"""

from __future__ import annotations

from buri.control.snapshot import NodeRecord
from buri.wire.tailcfg.filter import ALLOW_ALL, FilterRule


def has_sight(viewer: NodeRecord, now_s: float) -> bool:
    """Whether a node may see anybody at all now."""
    return viewer.authorized and not viewer.expired(now_s)


def is_shown(peer: NodeRecord) -> bool:
    """Whether a node is shown to those who have sight."""
    return peer.authorized


def packet_filter(_viewer: NodeRecord) -> list[FilterRule]:
    """What a node lets in."""
    return [ALLOW_ALL]
