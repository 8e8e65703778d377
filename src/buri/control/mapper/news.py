"""The members of one delta: what a node must be told of what was merged, given what it was told last.

Narrowest first: a peer that it knows and sees still gets one patch, or is said whole when a patch cannot say it; one
that it sees newly is said whole with its owner; one that it sees no more is removed. Filter rules go by name, so that
one changed rule is one rule on the wire (wire reference 1a: PacketFilters).
"""

from __future__ import annotations

from collections.abc import Hashable

from buri.control.changes import Fields
from buri.control.mapper import encode
from buri.control.mapper.fullmap import FullMaps
from buri.control.mapper.merged import Merged
from buri.control.mapper.visibility import EVERYBODY, Sight
from buri.control.snapshot import Snapshot
from buri.policy.members import Mask
from buri.policy.routes import NO_ROUTES


class News:
    """What was merged, in front of the newest snapshot."""

    def __init__(self, full_maps: FullMaps, snapshot: Snapshot, merged: Merged, now_s: float) -> None:
        self._full_maps = full_maps
        self._sees = full_maps.sees
        self._snapshot = snapshot
        self._merged = merged
        self._now_s = now_s

    def likeness(self, sight: Sight) -> Hashable:
        """What two nodes have in common that are told the same of their peers, when neither's sight changed."""
        merged = self._merged
        routes = tuple((i, sight.routes[i]) for i in merged.nodes if i in sight.routes) if sight.routes else ()
        if sight.peers == EVERYBODY:
            return (routes, sight.ipv4)
        if merged.mask is None:
            merged.mask = sum(map(self._sees.bit, merged.nodes))
        return (routes, sight.ipv4, merged.mask & sight.peers, tuple(sorted(self._users(sight))))

    def for_blind(self, viewer_id: int) -> list[bytes]:
        """For a node that may see nobody: relays and itself."""
        return [*self._about_itself(viewer_id), *self._derp_map()]

    def for_one(self, viewer_id: int, told: Sight, sight: Sight) -> list[bytes]:
        """For a node that changed, or whose sight did."""
        members = self._about_itself(viewer_id, told, sight)
        if told.filters is not sight.filters and told.filters.keys() != sight.filters.keys():
            members.append(b'"PacketFilters":' + encode.filters_patch(told.filters, sight.filters))
        if told.ssh != sight.ssh:
            members.append(b'"SSHPolicy":' + sight.ssh)
        return members + self.of_peers(told, sight, viewer_id)

    def _about_itself(self, viewer_id: int, told: Sight | None = None, sight: Sight | None = None) -> list[bytes]:
        sight = sight or self._sees.sight(viewer_id)
        news = self._merged.nodes.get(viewer_id, Fields.NONE) & ~Fields.SELF_KNOWS
        if not news and (told is None or told.own == sight.own):
            return []
        snapshot = self._snapshot
        node = encode.self_node(snapshot.nodes[viewer_id], snapshot.base_domain, self._now_s, sight.own)
        return [b'"Node":' + encode.json(node)]

    def _derp_map(self) -> list[bytes]:
        return [b'"DERPMap":' + encode.json(self._sees.derp_map(self._snapshot))] if self._merged.derp_map else []

    def _users(self, sight: Sight) -> set[int]:
        """Those whose profiles changed and whose nodes are seen."""
        if sight.peers == EVERYBODY:
            return set(self._merged.users)
        return {user_id for user_id in self._merged.users if self._sees.of_user(user_id) & sight.peers}

    def of_peers(self, told: Sight, sight: Sight, viewer_id: int) -> list[bytes]:
        """What became of the peers, and their owners; `viewer_id` 0: for anybody who is not among the changed."""
        merged, sees, snapshot = self._merged, self._sees, self._snapshot
        everyone = sees.all() & ~(sees.bit(viewer_id) if viewer_id else 0)
        known = told.peers & ~merged.moved
        fresh, kept, gone = (
            everyone & sight.peers & ~known,
            everyone & sight.peers & known,
            everyone & known & ~sight.peers,
        )
        whole, owners = set(sees.ids(fresh)), self._users(sight)
        owners |= {encode.owner_id(snapshot.nodes[node_id]) for node_id in whole}
        whole |= self._looking_new(told, sight, kept)
        patches: list[bytes] = []
        for node_id, fields in merged.nodes.items():
            node = snapshot.nodes.get(node_id)
            if node_id == viewer_id and node is not None:
                if fields & Fields.OWNER:
                    owners.add(encode.owner_id(node))
            elif node is not None and sees.bit(node_id) & kept:
                if fields & Fields.WHOLE:
                    whole.add(node_id)
                    if fields & Fields.OWNER:
                        owners.add(encode.owner_id(node))
                elif fields & Fields.PATCHES and node_id not in whole:
                    patches.append(self._full_maps.patch(node, fields))
        removed = sees.ids(gone)
        removed += [i for i, place in merged.left.items() if place & told.peers and not sees.bit(i) & sight.peers]
        return self._members(removed, whole, patches, owners, sight)

    def _looking_new(self, told: Sight, sight: Sight, kept: Mask) -> set[int]:
        """Known peers that this viewer sees with other routes or addresses than before."""
        if told.ipv4 != sight.ipv4:
            return set(self._sees.ids(kept))
        if told.routes == sight.routes:
            return set()
        ids = {*told.routes, *sight.routes}
        bit = self._sees.bit
        return {i for i in ids if bit(i) & kept and told.routes.get(i, NO_ROUTES) != sight.routes.get(i, NO_ROUTES)}

    def _members(
        self, removed: list[int], whole: set[int], patches: list[bytes], owners: set[int], sight: Sight
    ) -> list[bytes]:
        snapshot, members = self._snapshot, self._derp_map()
        if removed:
            members.append(b'"PeersRemoved":' + encode.json(removed))
        if whole:
            peers = (self._full_maps.peer(snapshot, snapshot.nodes[i], sight, self._now_s) for i in sorted(whole))
            members.append(b'"PeersChanged":' + encode.joined(peers))
        if patches:
            members.append(b'"PeersChangedPatch":' + encode.joined(patches))
        profiles = [encode.profile(snapshot.users[i]) for i in sorted(owners) if i in snapshot.users]
        if profiles:
            members.append(b'"UserProfiles":' + encode.json(profiles))
        return members
