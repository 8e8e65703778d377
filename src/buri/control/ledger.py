"""The order of things: decide on the newest state, commit, then publish. Nobody reads what is not on the disk.

Two snapshots: `head` is the newest decided one, on which the next decision is made; `snapshot` is the newest committed
one, which answers, netmaps and the console show. Commits are one chain, so `snapshot` only ever follows `head`. When
the store fails, everything undecided falls back to `snapshot` and every waiting caller gets the error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from buri.control.changes import Change
from buri.control.edit import Edit, Write
from buri.control.snapshot import Snapshot
from buri.core.errors import BuriError, StateError

Subscriber = Callable[[Snapshot, Sequence[Change]], None]


class CommitLog(Protocol):
    """What the ledger needs of a store: `store.writer.Writer`, or a test's own."""

    def submit(self, epoch: int, writes: Sequence[Write], done: Callable[[BuriError | None], None]) -> None: ...

    def close(self) -> None: ...


class Ledger:
    """Holds both snapshots and tells subscribers each committed change, in order, in the event loop."""

    def __init__(self, snapshot: Snapshot, log: CommitLog) -> None:
        self.snapshot = snapshot
        self.head = snapshot
        self._log = log
        self._epoch = 0
        self._waiting = 0
        self._closed = False
        self._subscribers: list[Subscriber] = []

    def subscribe(self, subscriber: Subscriber) -> None:
        """Call `subscriber(snapshot, changes)` after every commit that changed something others care for."""
        self._subscribers.append(subscriber)

    def enter(self, edit: Edit) -> asyncio.Future[None]:
        """Make an edit of `head` the new head; the future is done when it is committed and published.

        The commit goes on when the future is dropped. An edit that writes nothing is published at once unless it must
        wait for its predecessors.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._closed:
            future.set_exception(StateError("The server is stopping."))
            return future
        self.head = edit.snapshot
        if not edit.writes and not self._waiting:
            self._publish(edit.snapshot, edit.changes)
            future.set_result(None)
            return future
        epoch = self._epoch
        self._waiting += 1

        def done(error: BuriError | None) -> None:
            self._waiting -= 1
            if error is None:
                try:
                    self._publish(edit.snapshot, edit.changes)
                finally:  # it is committed, whatever a subscriber made of it
                    if not future.done():
                        future.set_result(None)
                return
            if epoch == self._epoch:  # the first to fail takes back all that was built upon it
                self._epoch += 1
                self.head = self.snapshot
            if not future.done():
                future.set_exception(error)
                future.exception()  # whoever dropped the future has no use for the error

        self._log.submit(epoch, edit.writes, done)
        return future

    def close(self) -> None:
        """Finish what was entered; later edits are refused. Blocks while the store flushes."""
        self._closed = True
        self._log.close()

    def _publish(self, snapshot: Snapshot, changes: Sequence[Change]) -> None:
        self.snapshot = snapshot
        if changes:
            for subscriber in self._subscribers:
                subscriber(snapshot, changes)
