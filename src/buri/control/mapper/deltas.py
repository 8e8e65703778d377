"""The journal of what changed, and what a reader who last read at one place must be told now.

Every open stream has a cursor into one journal and the sight it was told last; nothing is queued for it. What piled up
between its cursor and the end is merged when it asks: per peer one of removed, whole, or one patch, taken from the
newest snapshot; and where its sight is another, what became of its peers, filter and SSH rules. Readers at the same
place who see alike get the same bytes, made once. So a change costs one entry however many read, a slow reader costs no
memory, and one that fell out of the journal begins again with a whole netmap.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from itertools import islice

import msgspec

from buri.control.changes import Change, Fields
from buri.control.mapper import encode, visibility
from buri.control.mapper.fullmap import FullMaps
from buri.control.mapper.merged import Entry, Merged, entry_of
from buri.control.mapper.news import News
from buri.control.mapper.visibility import Followed, Sight
from buri.control.snapshot import Snapshot

MAX_ENTRIES = 8192


class Journal:
    """The last changes, numbered; `end` is the place after the newest."""

    def __init__(self, full_maps: FullMaps) -> None:
        self._full_maps = full_maps
        self._sees = full_maps.sees
        self._entries: deque[Entry] = deque()
        self.max_entries = MAX_ENTRIES
        self.end = 0
        self._merged: dict[int, Merged] = {}
        self._shared: dict[tuple[int, Hashable], bytes] = {}

    def append(self, changes: Iterable[Change], followed: Followed) -> list[Entry]:
        entries = [self._placed(entry_of(change), followed) for change in changes]
        entries.extend(Entry(node_id=node_id, fields=Fields.WHOLE) for node_id in followed.reshaped)
        self._entries.extend(entries)
        self.end += len(entries)
        while len(self._entries) > self.max_entries:
            self._entries.popleft()
        self._merged.clear()
        self._shared.clear()
        return entries

    def _placed(self, entry: Entry, followed: Followed) -> Entry:
        came, went = followed.came.get(entry.node_id, 0), followed.went.get(entry.node_id, 0)
        return msgspec.structs.replace(entry, came=came, went=went) if came or went else entry

    def reaches(self, cursor: int) -> bool:
        """Whether everything since `cursor` is still here."""
        return cursor >= self.end - len(self._entries)

    def since(self, cursor: int, told: Sight, snapshot: Snapshot, viewer_id: int, now_s: float) -> bytes | None:
        """The framed delta for a viewer that read up to `cursor`, when its sight was `told`.

        b"" = nothing for it; None = it needs a whole netmap. `snapshot` is the one at `end`; the viewer is in it.
        """
        merged = self._merge(cursor)
        own = merged.nodes.get(viewer_id, Fields.NONE)
        if own & (Fields.STANDING | Fields.ADDED):
            return None
        news = News(self._full_maps, snapshot, merged, now_s)
        if not visibility.has_sight(snapshot.nodes[viewer_id], now_s):
            return _message(news.for_blind(viewer_id))
        sight = self._sees.sight(viewer_id)
        if told is not sight or viewer_id in merged.nodes:
            return _message(news.for_one(viewer_id, told, sight))
        key = (cursor, news.likeness(sight))
        shared = self._shared.get(key)
        if shared is None:
            shared = self._shared[key] = _message(news.of_peers(sight, sight, 0))
        return shared

    def _merge(self, cursor: int) -> Merged:
        merged = self._merged.get(cursor)
        if merged is None:
            merged, newcomers = Merged(), set[int]()
            for entry in islice(self._entries, len(self._entries) - (self.end - cursor), None):
                merged.take(entry, newcomers)
            self._merged[cursor] = merged
        return merged


def _message(members: list[bytes]) -> bytes:
    if not members:
        return b""
    return encode.framed(encode.squeeze(b"{" + b",".join(members) + b"}"))
