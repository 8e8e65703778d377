"""Open map polls: each a cursor, woken by what concerns it, kept alive while nothing does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from buri.control.changes import Change, Fields
from buri.control.clock import Clock, Timer
from buri.control.mapper import encode, visibility
from buri.control.mapper.deltas import Entry, Journal
from buri.control.mapper.fullmap import FullMaps
from buri.control.snapshot import Snapshot

KEEPALIVE_S = 50.0
KEEPALIVE_JITTER_S = 8.0  # a client gives up after 120 s of silence


class Stream:
    """One node's open poll (`service.MapStream`)."""

    def __init__(self, mapper: Mapper, node_id: int) -> None:
        self.node_id = node_id
        self._mapper = mapper
        self._cursor = -1  # -1: a whole netmap is due
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
                self._cursor, message = self._mapper.read(self.node_id, self._cursor)
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
        self._full_maps = FullMaps(shared=shared_frames)
        self._journal = Journal(self._full_maps)
        self._streams: dict[int, Stream] = {}
        self.on_open: Callable[[int], None] = _nobody
        self.on_left: Callable[[int], None] = _nobody

    def publish(self, snapshot: Snapshot, changes: Sequence[Change]) -> None:
        """Take a committed change and wake whom it concerns."""
        self._snapshot = snapshot
        self._full_maps.forget(changes)
        entries = self._journal.append(changes)
        for entry in entries:
            if entry.node_id and entry.node_id not in snapshot.nodes:
                gone = self._streams.pop(entry.node_id, None)
                if gone is not None:
                    gone.end()
        self._wake(entries)

    def _wake(self, entries: Sequence[Entry]) -> None:
        """Wake the readers; news of one node alone concerns neither who sees nobody nor, mostly, that node itself."""
        now_s = self._clock.wall_s()
        only = {entry.node_id for entry in entries}
        lone = only.pop() if len(only) == 1 else 0
        lone_is_concerned = any(entry.fields & ~Fields.SELF_KNOWS for entry in entries)
        for node_id, stream in self._streams.items():
            if not stream.waits:
                continue  # it reads on without being told; in a ramp most do
            if node_id == lone:
                concerned = lone_is_concerned
            else:
                concerned = lone == 0 or visibility.has_sight(self._snapshot.nodes[node_id], now_s)
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

    def read(self, node_id: int, cursor: int) -> tuple[int, bytes]:
        """The next cursor and what lies between, b"" for nothing."""
        end = self._journal.end
        if cursor == end:
            return end, b""
        now_s = self._clock.wall_s()
        delta: bytes | None = None
        if cursor >= 0 and self._journal.reaches(cursor):
            delta = self._journal.since(cursor, self._snapshot, node_id, now_s)
        if delta is not None:
            return end, delta
        if cursor >= 0 and self._sees_nobody(node_id, now_s):
            raise StopAsyncIteration  # an empty Peers says nothing to a client: only a new stream forgets the old peers
        return end, self.full_map(node_id)

    def _sees_nobody(self, node_id: int, now_s: float) -> bool:
        nodes = self._snapshot.nodes
        if not visibility.has_sight(nodes[node_id], now_s):
            return False  # it keeps its old peers, and must not use them
        return not any(visibility.is_shown(node) for node in nodes.values() if node.id != node_id)

    def full_map(self, node_id: int) -> bytes:
        """One framed whole netmap."""
        return self._full_maps.message(self._snapshot, self._snapshot.nodes[node_id], self._clock.wall_s())

    def keepalive_timer(self, call: Callable[[], None]) -> Timer:
        return self._clock.call_later(KEEPALIVE_S + KEEPALIVE_JITTER_S * self._jitter(), call)

    def close(self) -> None:
        """End every poll."""
        for stream in list(self._streams.values()):
            stream.end()


def _nobody(_node_id: int) -> None:
    """Nobody asked to be told."""
