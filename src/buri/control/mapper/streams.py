"""Open map polls: each a cursor, woken by what concerns it, kept alive while nothing does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from buri.control.changes import Change, DERPMapChanged, Fields
from buri.control.clock import Clock, Timer
from buri.control.mapper import encode, visibility
from buri.control.mapper.deltas import Journal
from buri.control.mapper.fullmap import FullMaps
from buri.control.mapper.merged import Entry
from buri.control.mapper.visibility import Sight, Visibility
from buri.control.snapshot import Snapshot
from buri.policy.members import Mask

KEEPALIVE_S = 50.0
KEEPALIVE_JITTER_S = 8.0  # a client gives up after 120 s of silence


class Stream:
    """One node's open poll (`service.MapStream`)."""

    def __init__(self, mapper: Mapper, node_id: int) -> None:
        self.node_id = node_id
        self._mapper = mapper
        self.cursor = -1  # -1: a whole netmap is due
        self.told: Sight | None = None  # what it was shown last
        self._ended = False
        self._keepalive_due = False
        self._waiter: asyncio.Future[None] | None = None

    async def next(self) -> bytes:
        """What is new for this node, framed; waits until there is something. Raises StopAsyncIteration at the end."""
        keepalive: Timer | None = None
        try:
            while True:
                if self._ended:
                    raise StopAsyncIteration
                message = self._mapper.read(self)
                if message:
                    return message
                if self._keepalive_due:
                    return encode.KEEPALIVE
                if keepalive is None:
                    keepalive = self._mapper.keepalive_timer(self._keepalive)
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter
        finally:
            self._waiter = None
            self._keepalive_due = False
            if keepalive is not None:
                keepalive.cancel()

    def _keepalive(self) -> None:
        self._keepalive_due = True
        self.wake()

    @property
    def waits(self) -> bool:
        """Whether `next` sleeps until it is woken."""
        return self._waiter is not None and not self._waiter.done()

    def wake(self) -> None:
        """There may be something to read."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        """The client went away; safe to call twice."""
        self.end()
        self._mapper.left(self)

    def end(self) -> None:
        """Let `next` raise."""
        self._ended = True
        self.wake()


class Mapper:
    """Turns committed changes into wake-ups and messages. Lives in the event loop.

    `on_open` and `on_left` tell presence which nodes have an open stream.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        clock: Clock,
        jitter: Callable[[], float],
        *,
        shared_frames: bool = True,
    ) -> None:
        self._snapshot = snapshot
        self._clock = clock
        self._jitter = jitter
        self.sees = Visibility(snapshot)
        self._full_maps = FullMaps(self.sees, shared=shared_frames)
        self._journal = Journal(self._full_maps)
        self._streams: dict[int, Stream] = {}
        self.on_open: Callable[[int], None] = _nobody
        self.on_left: Callable[[int], None] = _nobody

    def publish(self, snapshot: Snapshot, changes: Sequence[Change]) -> None:
        """Take a committed change and wake whom it concerns."""
        self._snapshot = snapshot
        followed = self.sees.follow(snapshot, changes)
        if followed.relays:
            changes = (*changes, DERPMapChanged())
        self._full_maps.forget(changes, followed.reshaped)
        entries = self._journal.append(changes, followed)
        for entry in entries:
            if entry.node_id and entry.node_id not in snapshot.nodes:
                gone = self._streams.pop(entry.node_id, None)
                if gone is not None:
                    gone.end()
        self._wake(entries, followed.touched)

    def _wake(self, entries: Sequence[Entry], touched: Mask) -> None:
        """Wake the readers; news of one node alone concerns those who see it, and, mostly, not that node itself."""
        now_s = self._clock.wall_s()
        only = {entry.node_id for entry in entries}
        lone = only.pop() if len(only) == 1 else 0
        places = sum(entry.went for entry in entries) | (self.sees.bit(lone) if lone else 0)
        lone_is_concerned = any(entry.fields & ~Fields.SELF_KNOWS for entry in entries)
        for node_id, stream in self._streams.items():
            if not stream.waits:
                continue  # it reads on without being told; in a ramp most do
            if lone == 0:
                concerned = True
            elif node_id == lone:
                concerned = lone_is_concerned or stream.told is not self.sees.sight(node_id)
            else:
                told = stream.told
                concerned = told is None or bool(told.peers & places or self.sees.bit(node_id) & touched)
                concerned = concerned and visibility.has_sight(self._snapshot.nodes[node_id], now_s)
            if concerned:
                stream.wake()

    def set_journal_size(self, entries: int) -> None:
        """How many changes are kept for slow readers."""
        self._journal.max_entries = entries

    def open(self, node_id: int) -> Stream:
        """Begin a poll; the node's older one ends."""
        stream = Stream(self, node_id)
        older = self._streams.get(node_id)
        self._streams[node_id] = stream
        if older is not None:
            older.end()
        self.on_open(node_id)
        return stream

    def left(self, stream: Stream) -> None:
        """A poll's client went away."""
        if self._streams.get(stream.node_id) is stream:
            del self._streams[stream.node_id]
            self.on_left(stream.node_id)

    def is_open(self, node_id: int) -> bool:
        return node_id in self._streams

    def read(self, stream: Stream) -> bytes:
        """What is new for a stream, b"" for nothing; the stream's cursor and sight move on."""
        cursor, end = stream.cursor, self._journal.end
        if cursor == end:
            return b""
        node_id, now_s = stream.node_id, self._clock.wall_s()
        delta: bytes | None = None
        if stream.told is not None and self._journal.reaches(cursor):
            delta = self._journal.since(cursor, stream.told, self._snapshot, node_id, now_s)
        if delta is None and stream.told is not None and self._sees_nobody(node_id, now_s):
            raise StopAsyncIteration  # an empty Peers says nothing to a client: only a new stream forgets the old peers
        stream.cursor, stream.told = end, self.sees.sight(node_id)
        return self.full_map(node_id) if delta is None else delta

    def _sees_nobody(self, node_id: int, now_s: float) -> bool:
        if not visibility.has_sight(self._snapshot.nodes[node_id], now_s):
            return False  # it keeps its old peers, and must not use them
        return not self.sees.sight(node_id).peers & self.sees.all() & ~self.sees.bit(node_id)

    def full_map(self, node_id: int) -> bytes:
        """One framed whole netmap."""
        viewer, sight = self._snapshot.nodes[node_id], self.sees.sight(node_id)
        return self._full_maps.message(self._snapshot, viewer, sight, self._clock.wall_s())

    def keepalive_timer(self, call: Callable[[], None]) -> Timer:
        return self._clock.call_later(KEEPALIVE_S + KEEPALIVE_JITTER_S * self._jitter(), call)

    def close(self) -> None:
        """End every poll."""
        for stream in list(self._streams.values()):
            stream.end()


def _nobody(_node_id: int) -> None:
    """Nobody asked to be told."""
