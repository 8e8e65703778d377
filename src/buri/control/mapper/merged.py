"""Entries of the journal, and several of them merged into one account of what happened to whom."""

from __future__ import annotations

import msgspec

from buri.control.changes import (
    Change,
    DERPMapChanged,
    Fields,
    NodeAdded,
    NodeChanged,
    NodeRemoved,
    PolicyChanged,
    UserChanged,
)
from buri.policy.members import Mask


class Entry(msgspec.Struct, frozen=True):
    """One thing that happened: to a node, to a user, or to the DERP map; none of these: the policy alone changed.

    `came` and `went` are the place that the node took or left.
    """

    node_id: int = 0
    user_id: int = 0
    fields: int = Fields.NONE
    derp_map: bool = False
    came: Mask = 0
    went: Mask = 0


def entry_of(change: Change) -> Entry:
    match change:
        case NodeAdded(node_id=node_id):
            return Entry(node_id=node_id, fields=Fields.ADDED | Fields.WHOLE | Fields.OWNER)
        case NodeRemoved(node_id=node_id):
            return Entry(node_id=node_id)
        case NodeChanged(node_id=node_id, fields=fields):
            return Entry(node_id=node_id, fields=fields)
        case UserChanged(user_id=user_id):
            return Entry(user_id=user_id)
        case DERPMapChanged():
            return Entry(derp_map=True)
        case PolicyChanged():
            return Entry()


class Merged(msgspec.Struct):
    """What lies between two places of the journal, merged.

    `moved`: the places in masks that were taken or left meanwhile. `left`: nodes that were there at the beginning and
    left, by their id, with the place they had. `mask`: those of `nodes` that take part now, once somebody worked it out.
    """

    nodes: dict[int, int] = msgspec.field(default_factory=dict)
    users: set[int] = msgspec.field(default_factory=set)
    derp_map: bool = False
    moved: Mask = 0
    left: dict[int, Mask] = msgspec.field(default_factory=dict)
    mask: Mask | None = None

    def take(self, entry: Entry, newcomers: set[int]) -> None:
        """Add the next entry; `newcomers` are nodes that came after the beginning."""
        self.derp_map = self.derp_map or entry.derp_map
        if entry.user_id:
            self.users.add(entry.user_id)
        if not entry.node_id:
            return
        self.nodes[entry.node_id] = self.nodes.get(entry.node_id, Fields.NONE) | entry.fields
        self.moved |= entry.came | entry.went
        if entry.went and entry.node_id not in newcomers:
            self.left.setdefault(entry.node_id, entry.went)
        if entry.came or entry.went:
            newcomers.add(entry.node_id)
