"""Whole netmaps, put together from pieces that many receivers share.

Peers stand in chunks of up to 64 by node id. A chunk's JSON is compressed once and goes as it is into every netmap
that shows the whole chunk; what of the others is shown is made for the receiver alone, of peers encoded once. So where
everybody sees everybody a join costs the server one or two compressions and a copy of the rest, however many nodes
there are. `shared=False` (a switch for clients that cannot read several zstd frames as one text) compresses each
netmap as one frame.
"""

from __future__ import annotations

from collections.abc import Iterable

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
from buri.control.mapper import encode, visibility
from buri.control.mapper.visibility import EVERYBODY, Sight, Visibility
from buri.control.snapshot import NodeRecord, Snapshot
from buri.policy.routes import NO_ROUTES, PeerRoutes
from buri.wire.tailcfg.base import format_time
from buri.wire.tailcfg.mapping import Debug

CHUNK = 64
COMMA = encode.squeeze(b",")

_Routes = tuple[tuple[int, PeerRoutes], ...]
_Piece = tuple[bytes, bytes]
"""A text and its zstd frame (empty when frames are not shared)."""


class FullMaps:
    """The pieces of whole netmaps, kept until a change touches them."""

    def __init__(self, sees: Visibility, *, shared: bool = True) -> None:
        self.sees = sees
        self.shared = shared
        self._peers: dict[int, dict[tuple[PeerRoutes, bool], bytes]] = {}
        self._patches: dict[int, dict[int, bytes]] = {}
        self._chunks: dict[int, dict[tuple[_Routes, bool], _Piece]] = {}
        self._members: dict[int, tuple[tuple[int, ...], int]] = {}
        self._common: dict[bool, _Piece] = {}
        self._indexed = False

    def forget(self, changes: Iterable[Change], reshaped: Iterable[int] = ()) -> None:
        """Drop the pieces that a change made stale. `reshaped`: nodes that look different, though nothing says so."""
        for change in changes:
            if isinstance(change, NodeAdded | NodeChanged | NodeRemoved):
                self._forget_node(change.node_id)
                if not isinstance(change, NodeChanged) or change.fields & Fields.STANDING:
                    self._indexed = False
            elif isinstance(change, PolicyChanged):
                self._indexed = False
            elif isinstance(change, DERPMapChanged | UserChanged):
                self._common.clear()
            if isinstance(change, NodeAdded) or (isinstance(change, NodeChanged) and change.fields & Fields.OWNER):
                self._common.clear()  # its owner may be new
        for node_id in reshaped:
            self._forget_node(node_id)

    def _forget_node(self, node_id: int) -> None:
        self._peers.pop(node_id, None)
        self._patches.pop(node_id, None)
        self._chunks.pop(node_id // CHUNK, None)

    def peer(self, snapshot: Snapshot, node: NodeRecord, sight: Sight, now_s: float) -> bytes:
        """A peer's JSON, encoded once for all who see it alike."""
        usable = sight.routes.get(node.id, NO_ROUTES) if sight.routes else NO_ROUTES
        forms = self._peers.setdefault(node.id, {})
        text = forms.get((usable, sight.ipv4))
        if text is None:
            view = self.sees.peer_view(node.id, usable, ipv4=sight.ipv4)
            text = forms[usable, sight.ipv4] = encode.peer_json(node, snapshot.base_domain, now_s, view)
        return text

    def patch(self, node: NodeRecord, fields: int) -> bytes:
        """The narrowest word on a known peer, encoded once for all who are told the same of it."""
        forms = self._patches.setdefault(node.id, {})
        text = forms.get(fields)
        if text is None:
            text = forms[fields] = encode.patch_json(node, fields)
        return text

    def message(self, snapshot: Snapshot, viewer: NodeRecord, sight: Sight, now_s: float) -> bytes:
        """The framed full map of one node."""
        sighted = visibility.has_sight(viewer, now_s)
        everybody = sight.peers == EVERYBODY
        peers = sight.peers & self.sees.all() & ~self.sees.bit(viewer.id) if sighted else 0
        head = [
            b'{"Node":',
            encode.json(encode.self_node(viewer, snapshot.base_domain, now_s, sight.own)),
            b',"PacketFilters":',
            encode.filters_whole(sight.filters),
            b',"SSHPolicy":',
            sight.ssh,
            b',"ControlTime":',
            encode.json(format_time(now_s)),
        ]
        if not everybody:
            head += (b',"UserProfiles":', self._profiles(snapshot, viewer, peers))
        common = self._common_part(snapshot, profiles=everybody)
        pieces = self._pieces(snapshot, peers, sight, now_s)
        if not self.shared:
            text = b"".join(head) + common[0] + b",".join(text for text, _ in pieces) + b"]}"
            return encode.framed(encode.squeeze(text))
        frames = COMMA.join(frame for _, frame in pieces)
        return encode.framed(encode.squeeze(b"".join(head)) + common[1] + frames + encode.squeeze(b"]}"))

    def _profiles(self, snapshot: Snapshot, viewer: NodeRecord, peers: int) -> bytes:
        """Of those alone whose nodes are shown."""
        ids = [viewer.id, *self.sees.ids(peers)]
        owners = sorted({encode.owner_id(snapshot.nodes[node_id]) for node_id in ids})
        profiles = [encode.profile(snapshot.users[user_id]) for user_id in owners if user_id in snapshot.users]
        return encode.json([*profiles, encode.TAGGED_PROFILE])

    def _pieces(self, snapshot: Snapshot, peers: int, sight: Sight, now_s: float) -> list[_Piece]:
        """The shown peers in the order of their ids: whole chunks shared, what is between them made now."""
        if not self._indexed:
            self._index(snapshot)
        routes: dict[int, list[tuple[int, PeerRoutes]]] = {}
        for node_id, usable in sorted(sight.routes.items()):
            routes.setdefault(node_id // CHUNK, []).append((node_id, usable))
        pieces: list[_Piece] = []
        lone: list[bytes] = []
        for number, (_, mask) in self._members.items():
            shown = peers & mask
            if shown == mask:
                self._add(pieces, lone)
                pieces.append(self._chunk(number, snapshot, tuple(routes.get(number, ())), sight, now_s))
            elif shown:
                lone.extend(self.peer(snapshot, snapshot.nodes[i], sight, now_s) for i in self.sees.ids(shown))
        self._add(pieces, lone)
        return pieces

    def _add(self, pieces: list[_Piece], lone: list[bytes]) -> None:
        if lone:
            text = b",".join(lone)
            pieces.append((text, encode.squeeze(text) if self.shared else b""))
            lone.clear()

    def _index(self, snapshot: Snapshot) -> None:
        members: dict[int, list[int]] = {}
        for node_id in sorted(snapshot.nodes):
            if self.sees.bit(node_id):
                members.setdefault(node_id // CHUNK, []).append(node_id)
        self._members = {n: (tuple(ids), sum(map(self.sees.bit, ids))) for n, ids in members.items()}
        self._indexed = True

    def _chunk(self, number: int, snapshot: Snapshot, routes: _Routes, sight: Sight, now_s: float) -> _Piece:
        forms = self._chunks.setdefault(number, {})
        piece = forms.get((routes, sight.ipv4))
        if piece is None:
            ids, _ = self._members[number]
            text = b",".join(self.peer(snapshot, snapshot.nodes[node_id], sight, now_s) for node_id in ids)
            piece = forms[routes, sight.ipv4] = (text, encode.squeeze(text) if self.shared else b"")
        return piece

    def _common_part(self, snapshot: Snapshot, *, profiles: bool) -> _Piece:
        """What every netmap of the tailnet holds alike, up to the opening of the peers' list."""
        found = self._common.get(profiles)
        if found is None:
            text = (
                b',"DERPMap":'
                + encode.json(self.sees.derp_map(snapshot))
                + b',"DNSConfig":'
                + encode.json(encode.dns_config(snapshot.base_domain))
                + b',"Domain":'
                + encode.json(snapshot.base_domain)
                + b',"Debug":'
                + encode.json(Debug(disable_log_tail=True))
            )
            if profiles:
                people = [encode.profile(user) for user in snapshot.users.values()]
                text += b',"UserProfiles":' + encode.json([*people, encode.TAGGED_PROFILE])
            text += b',"Peers":['
            found = self._common[profiles] = (text, encode.squeeze(text))
        return found
