"""The journal of what changed, and what a reader who last read at one place must be told now.

Every open stream has a cursor into one journal; nothing is queued for it. What piled up between its cursor and the end
is merged when it asks: per peer one of removed, whole, or one patch, taken from the newest snapshot. Readers at the
same place get the same bytes, made once. So a change costs one entry however many read, a slow reader costs no memory,
and one that fell out of the journal begins again with a whole netmap.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice

import msgspec

from buri.control.changes import Change, DERPMapChanged, Fields, NodeAdded, NodeChanged, NodeRemoved, UserChanged
from buri.control.mapper import encode, visibility
from buri.control.mapper.fullmap import FullMaps
from buri.control.snapshot import Snapshot

MAX_ENTRIES = 8192


class Entry(msgspec.Struct, frozen=True):
    """One thing that happened: to a node, to a user, or (both 0) to the DERP map."""

    node_id: int = 0
    user_id: int = 0
    fields: Fields = Fields.NONE


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
            return Entry()


class Merged(msgspec.Struct):
    """What lies between two places of the journal, merged."""

    nodes: dict[int, Fields] = msgspec.field(default_factory=dict)
    users: set[int] = msgspec.field(default_factory=set)
    derp_map: bool = False


class Journal:
    """The last changes, numbered; `end` is the place after the newest."""

    def __init__(self, full_maps: FullMaps) -> None:
        self._full_maps = full_maps
        self._entries: deque[Entry] = deque()
        self.max_entries = MAX_ENTRIES
        self.end = 0
        self._shared: dict[int, tuple[Merged, bytes]] = {}

    def append(self, changes: Iterable[Change]) -> list[Entry]:
        entries = [entry_of(change) for change in changes]
        self._entries.extend(entries)
        self.end += len(entries)
        while len(self._entries) > self.max_entries:
            self._entries.popleft()
        self._shared.clear()
        return entries

    def reaches(self, cursor: int) -> bool:
        """Whether everything since `cursor` is still here."""
        return cursor >= self.end - len(self._entries)

    def since(self, cursor: int, snapshot: Snapshot, viewer_id: int, now_s: float) -> bytes | None:
        """The framed delta for a viewer that read up to `cursor`; b"" = nothing for it; None = it needs a whole netmap.

        `snapshot` is the one at `end`; the viewer is in it.
        """
        merged, shared = self._merged(cursor, snapshot, now_s)
        own = merged.nodes.get(viewer_id, Fields.NONE)
        if own & (Fields.STANDING | Fields.ADDED):
            return None
        viewer = snapshot.nodes[viewer_id]
        if viewer_id not in merged.nodes and visibility.has_sight(viewer, now_s):
            return shared
        members = self._members(merged, snapshot, viewer_id, now_s)
        if own & ~Fields.SELF_KNOWS:
            node = encode.json(encode.self_node(viewer, snapshot.base_domain, now_s))
            members.insert(0, b'"Node":' + node)
        return _message(members)

    def _merged(self, cursor: int, snapshot: Snapshot, now_s: float) -> tuple[Merged, bytes]:
        known = self._shared.get(cursor)
        if known is not None:
            return known
        merged = Merged()
        for entry in islice(self._entries, len(self._entries) - (self.end - cursor), None):
            if entry.node_id:
                merged.nodes[entry.node_id] = merged.nodes.get(entry.node_id, Fields.NONE) | entry.fields
            elif entry.user_id:
                merged.users.add(entry.user_id)
            else:
                merged.derp_map = True
        made = (merged, _message(self._members(merged, snapshot, 0, now_s)))
        self._shared[cursor] = made
        return made

    def _members(self, merged: Merged, snapshot: Snapshot, viewer_id: int, now_s: float) -> list[bytes]:
        """The members of the MapResponse, in JSON; `viewer_id` 0 = for anybody who is not among the changed."""
        whole, patches, removed, owners = [], [], [], set(merged.users)
        sighted = viewer_id == 0 or visibility.has_sight(snapshot.nodes[viewer_id], now_s)
        for node_id, fields in merged.nodes.items() if sighted else ():
            node = snapshot.nodes.get(node_id)
            if node_id == viewer_id:
                if fields & Fields.OWNER:
                    owners.add(encode.owner_id(snapshot.nodes[node_id]))
            elif node is None or not visibility.is_shown(node):
                if not fields & Fields.ADDED:  # who was never shown need not be removed
                    removed.append(node_id)
            elif fields & Fields.WHOLE:
                whole.append(self._full_maps.peer(snapshot, node, now_s))
                if fields & Fields.OWNER:
                    owners.add(encode.owner_id(node))
            elif fields & Fields.PATCHES:
                patches.append(encode.patch_json(node, fields))
        members = []
        if merged.derp_map:
            members.append(b'"DERPMap":' + encode.json(snapshot.derp_map))
        if removed:
            members.append(b'"PeersRemoved":' + encode.json(removed))
        if whole:
            members.append(b'"PeersChanged":' + encode.joined(whole))
        if patches:
            members.append(b'"PeersChangedPatch":' + encode.joined(patches))
        profiles = [encode.profile(snapshot.users[i]) for i in sorted(owners) if i in snapshot.users]
        if profiles:
            members.append(b'"UserProfiles":' + encode.json(profiles))
        return members


def _message(members: list[bytes]) -> bytes:
    if not members:
        return b""
    return encode.framed(encode.squeeze(b"{" + b",".join(members) + b"}"))
