"""One thread that writes: waiting commits are gathered into one transaction and one flush to disk."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from buri.control.edit import Write
from buri.control.store.database import Database
from buri.core.errors import BuriError, InternalError

Done = Callable[[BuriError | None], None]
MAX_BATCH = 512


class _Item(NamedTuple):
    epoch: int
    writes: Sequence[Write]
    done: Done


class Writer:
    """Commits in the order of `submit`; each batch ends with one `done` per commit, in order, in the event loop.

    When a batch fails, every commit in it fails, and so does every later one of the same `epoch`: each was decided on
    the ones before it.
    """

    def __init__(self, database: Database, loop: asyncio.AbstractEventLoop) -> None:
        self._database = database
        self._loop = loop
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="buri-store", daemon=True)
        self._thread.start()

    def submit(self, epoch: int, writes: Sequence[Write], done: Done) -> None:
        """Queue one commit; `done(None)` in the loop when it is on disk, `done(error)` when it is not."""
        self._queue.put(_Item(epoch, writes, done))

    def close(self) -> None:
        """Finish what was submitted, then close the database. Blocks for that long."""
        self._queue.put(None)
        self._thread.join()
        self._database.close()

    def _run(self) -> None:
        broken_epoch = -1
        error: BuriError | None = None
        last = False
        while not last:
            batch, last = self._gather()
            doomed = [item for item in batch if item.epoch <= broken_epoch]
            sound = [item for item in batch if item.epoch > broken_epoch]
            self._report(doomed, error)
            failure = self._commit([write for item in sound for write in item.writes])
            if failure is not None:
                error, broken_epoch = failure, sound[-1].epoch
            self._report(sound, failure)

    def _gather(self) -> tuple[list[_Item], bool]:
        """Wait for work and take all that is there; True when it is the last."""
        batch: list[_Item] = []
        item = self._queue.get()
        while item is not None:
            batch.append(item)
            if len(batch) == MAX_BATCH:
                return batch, False
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return batch, False
        return batch, True

    def _report(self, items: list[_Item], error: BuriError | None) -> None:
        if items:
            self._loop.call_soon_threadsafe(_finish, [item.done for item in items], error)

    def _commit(self, writes: list[Write]) -> BuriError | None:
        if not writes:
            return None
        try:
            self._database.commit(writes)
        except BuriError as error:
            return error
        except Exception as error:  # the thread must live on: a bug in one batch is told to its callers
            return InternalError(f"The store failed: {error!r}.")
        return None


def _finish(waiting: list[Done], error: BuriError | None) -> None:
    loop = asyncio.get_running_loop()
    for done in waiting:
        loop.call_soon(done, error)  # one by one: should a listener fail on one commit, the others still hear
