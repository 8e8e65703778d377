"""Whole netmaps, put together from pieces that many receivers share.

Peers stand in chunks of up to 64 by node id. A chunk's JSON is compressed once and goes as it is into every netmap
that shows the whole chunk; only the chunk with the receiver itself is made for it alone. So a join costs the server
one or two compressions and a copy of the rest, however many nodes there are. `shared=False` (a switch for clients
that cannot read several zstd frames as one text) compresses each netmap as one frame.
"""

from __future__ import annotations

from collections.abc import Iterable

from buri.control.changes import Change, DERPMapChanged, Fields, NodeAdded, NodeChanged, NodeRemoved, UserChanged
from buri.control.mapper import encode, visibility
from buri.control.snapshot import NodeRecord, Snapshot
from buri.wire.tailcfg.base import format_time
from buri.wire.tailcfg.mapping import Debug

CHUNK = 64
COMMA = encode.squeeze(b",")


class FullMaps:
    """The pieces of whole netmaps, kept until a change touches them."""

    def __init__(self, *, shared: bool = True) -> None:
        self.shared = shared
        self._peers: dict[int, bytes] = {}
        self._chunks: dict[int, tuple[bytes, bytes]] = {}
        self._members: dict[int, tuple[int, ...]] = {}
        self._common: tuple[bytes, bytes] | None = None
        self._indexed = False

    def forget(self, changes: Iterable[Change]) -> None:
        """Drop the pieces that a change made stale."""
        for change in changes:
            if isinstance(change, NodeAdded | NodeChanged | NodeRemoved):
                self._peers.pop(change.node_id, None)
                self._chunks.pop(change.node_id // CHUNK, None)
                if not isinstance(change, NodeChanged):
                    self._indexed = False
            elif isinstance(change, DERPMapChanged | UserChanged):
                self._common = None
            if isinstance(change, NodeAdded) or (isinstance(change, NodeChanged) and change.fields & Fields.OWNER):
                self._common = None  # its owner may be new

    def peer(self, snapshot: Snapshot, node: NodeRecord, now_s: float) -> bytes:
        """A peer's JSON, encoded once for all who see it."""
        text = self._peers.get(node.id)
        if text is None:
            text = self._peers[node.id] = encode.peer_json(node, snapshot.base_domain, now_s)
        return text

    def message(self, snapshot: Snapshot, viewer: NodeRecord, now_s: float) -> bytes:
        """The framed full map of one node."""
        head = (
            b'{"Node":'
            + encode.json(encode.self_node(viewer, snapshot.base_domain, now_s))
            + b',"PacketFilter":'
            + encode.json(visibility.packet_filter(viewer))
            + b',"ControlTime":'
            + encode.json(format_time(now_s))
        )
        common, common_frame = self._common_part(snapshot)
        chunks = self._visible_chunks(snapshot, viewer, now_s) if visibility.has_sight(viewer, now_s) else []
        if not self.shared:
            text = head + common + b",".join(chunk for chunk, _ in chunks) + b"]}"
            return encode.framed(encode.squeeze(text))
        frames = COMMA.join(frame for _, frame in chunks)
        return encode.framed(encode.squeeze(head) + common_frame + frames + encode.squeeze(b"]}"))

    def _visible_chunks(self, snapshot: Snapshot, viewer: NodeRecord, now_s: float) -> list[tuple[bytes, bytes]]:
        if not self._indexed:
            members: dict[int, list[int]] = {}
            for node_id in sorted(snapshot.nodes):
                members.setdefault(node_id // CHUNK, []).append(node_id)
            self._members = {number: tuple(ids) for number, ids in members.items()}
            self._indexed = True
        made = []
        for number, ids in self._members.items():
            if number == viewer.id // CHUNK:
                ids = tuple(node_id for node_id in ids if node_id != viewer.id)
                chunk: tuple[bytes, bytes] | None = self._chunk(snapshot, ids, now_s)
            elif (chunk := self._chunks.get(number)) is None:
                chunk = self._chunks[number] = self._chunk(snapshot, ids, now_s)
            if chunk is not None and chunk[0]:
                made.append(chunk)
        return made

    def _chunk(self, snapshot: Snapshot, ids: tuple[int, ...], now_s: float) -> tuple[bytes, bytes]:
        nodes = (snapshot.nodes[node_id] for node_id in ids)
        text = b",".join(self.peer(snapshot, node, now_s) for node in nodes if visibility.is_shown(node))
        return text, encode.squeeze(text) if self.shared else b""

    def _common_part(self, snapshot: Snapshot) -> tuple[bytes, bytes]:
        """What every netmap of the tailnet holds alike, up to the opening of the peers' list."""
        if self._common is None:
            profiles = [encode.profile(user) for user in snapshot.users.values()]
            text = (
                b',"DERPMap":'
                + encode.json(snapshot.derp_map)
                + b',"DNSConfig":'
                + encode.json(encode.dns_config(snapshot.base_domain))
                + b',"Domain":'
                + encode.json(snapshot.base_domain)
                + b',"UserProfiles":'
                + encode.json([*profiles, encode.TAGGED_PROFILE])
                + b',"Debug":'
                + encode.json(Debug(disable_log_tail=True))
                + b',"Peers":['
            )
            self._common = (text, encode.squeeze(text))
        return self._common
