"""What time does to nodes: online and offline, the end of ephemeral nodes, keys that run out; and to pre-auth keys.

Online means an open stream. Offline follows OFFLINE_GRACE_S after the last one closed, so that a reconnect is no news.
An ephemeral node is deleted `ephemeral_timeout_s` after it went offline (or after the server's start). A pre-auth key
that was used up, revoked or ran out is told apart from an unknown one for ENDED_KEYS_KEPT_S, and then forgotten.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from buri.control.changes import Change, Fields, NodeAdded, NodeChanged, NodeRemoved
from buri.control.clock import Clock, Timer
from buri.control.domain import authkeys, expiry
from buri.control.edit import Edit
from buri.control.ledger import Ledger
from buri.control.snapshot import Snapshot

OFFLINE_GRACE_S = 10.0
CHECKPOINT_S = 600.0
ENDED_KEYS_KEPT_S = 30 * 86400.0
RETRY_S = 5.0
LONGEST_TIMER_S = 3600.0  # wall-clock steps are noticed within this time


class Presence:
    """Timers of the tailnet. `is_open(node_id)` tells whether a node has an open stream."""

    def __init__(
        self, ledger: Ledger, clock: Clock, is_open: Callable[[int], bool], *, ephemeral_timeout_s: float
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._is_open = is_open
        self._ephemeral_timeout_s = ephemeral_timeout_s
        self._timers: dict[int, Timer] = {}
        self._closed = False
        self._checkpoint_timer: Timer | None = None
        self._expiry_timer: Timer | None = None
        self._next_expiry_s: float | None = None
        self._expired_until_s = clock.wall_s()
        ledger.subscribe(self._published)

    def start(self) -> None:
        """Arm the timers of what was there before."""
        for node in self._ledger.snapshot.nodes.values():
            self._await_end_of_ephemeral(node.id)
        self._arm_expiry()
        self._forget_ended_keys()
        self._arm_checkpoint()

    def _arm_checkpoint(self) -> None:
        def due() -> None:
            self._checkpoint()
            self._forget_ended_keys()
            self._arm_checkpoint()

        self._checkpoint_timer = self._clock.call_later(CHECKPOINT_S, due)

    def _forget_ended_keys(self) -> None:
        before_s = self._clock.wall_s() - ENDED_KEYS_KEPT_S
        edit = Edit(self._ledger.head)
        for key in self._ledger.head.auth_keys.values():
            end_s = authkeys.ended_s(key)
            if end_s is not None and end_s < before_s:
                edit.remove_auth_key(key.id)
        if edit.writes:
            self._enter(edit, self._forget_ended_keys)

    def opened(self, node_id: int) -> None:
        """A stream was opened."""
        self._cancel(node_id)
        node = self._ledger.head.nodes.get(node_id)
        if node is not None and not node.online and self._is_open(node_id):
            edit = Edit(self._ledger.head)
            edit.put_node(msgspec.structs.replace(node, online=True), self._clock.wall_s(), stored=False)
            self._enter(edit, lambda: self.opened(node_id))

    def left(self, node_id: int) -> None:
        """A node's last stream was closed."""
        self._cancel(node_id)
        self._timers[node_id] = self._clock.call_later(OFFLINE_GRACE_S, lambda: self._went_offline(node_id))

    def _went_offline(self, node_id: int) -> None:
        self._timers.pop(node_id, None)
        node = self._ledger.head.nodes.get(node_id)
        if node is None or not node.online or self._is_open(node_id):
            return
        now_s = self._clock.wall_s()
        edit = Edit(self._ledger.head)
        edit.put_node(msgspec.structs.replace(node, online=False, last_seen_s=now_s), now_s)
        self._enter(edit, lambda: self._went_offline(node_id))
        self._await_end_of_ephemeral(node_id)

    def _await_end_of_ephemeral(self, node_id: int) -> None:
        node = self._ledger.head.nodes.get(node_id)
        if node is not None and node.ephemeral and not node.online and node_id not in self._timers:
            delay_s = self._ephemeral_timeout_s
            self._timers[node_id] = self._clock.call_later(delay_s, lambda: self._ephemeral_is_over(node_id))

    def _ephemeral_is_over(self, node_id: int) -> None:
        self._timers.pop(node_id, None)
        node = self._ledger.head.nodes.get(node_id)
        if node is None or not node.ephemeral or node.online or self._is_open(node_id):
            return
        edit = Edit(self._ledger.head)
        edit.remove_node(node_id)
        self._enter(edit, lambda: self._ephemeral_is_over(node_id))

    def _cancel(self, node_id: int) -> None:
        timer = self._timers.pop(node_id, None)
        if timer is not None:
            timer.cancel()

    def _published(self, snapshot: Snapshot, changes: Sequence[Change]) -> None:
        for change in changes:
            if isinstance(change, NodeRemoved):
                self._cancel(change.node_id)
            elif isinstance(change, NodeAdded):
                self._await_end_of_ephemeral(change.node_id)
                self._expiry_may_be_nearer(snapshot, change.node_id)
            elif isinstance(change, NodeChanged) and change.fields & Fields.KEY_EXPIRY:
                self._expiry_may_be_nearer(snapshot, change.node_id)

    def _expiry_may_be_nearer(self, snapshot: Snapshot, node_id: int) -> None:
        node = snapshot.nodes.get(node_id)
        if node is None or node.expiry_s <= self._expired_until_s:
            return
        if self._next_expiry_s is None or node.expiry_s < self._next_expiry_s:
            self._arm_expiry()

    def _arm_expiry(self) -> None:
        if self._expiry_timer is not None:
            self._expiry_timer.cancel()
            self._expiry_timer = None
        self._next_expiry_s = expiry.next_expiry_s(self._ledger.head, self._expired_until_s)
        if self._next_expiry_s is not None:
            delay_s = min(max(self._next_expiry_s - self._clock.wall_s(), 0.0), LONGEST_TIMER_S)
            self._expiry_timer = self._clock.call_later(delay_s, self._expire)

    def _expire(self) -> None:
        self._expiry_timer = None
        now_s = self._clock.wall_s()
        edit = Edit(self._ledger.head)
        over = expiry.expired_between(edit.snapshot, self._expired_until_s, now_s)
        for node in over:
            edit.expire_by_time(node.id)
        self._expired_until_s = max(now_s, self._expired_until_s)
        if edit.changes:
            ids = [node.id for node in over]
            self._enter(edit, lambda: self._tell_expired(ids))
        self._arm_expiry()

    def _tell_expired(self, node_ids: list[int]) -> None:
        edit = Edit(self._ledger.head)
        for node_id in node_ids:
            if node_id in edit.snapshot.nodes:
                edit.expire_by_time(node_id)
        self._enter(edit, lambda: self._tell_expired(node_ids))

    def _enter(self, edit: Edit, retry: Callable[[], None]) -> None:
        """Enter an edit that nobody waits for; when the store fails, look again a little later."""

        def done(future: asyncio.Future[None]) -> None:
            if not self._closed and not future.cancelled() and future.exception() is not None:
                self._clock.call_later(RETRY_S, retry)

        self._ledger.enter(edit).add_done_callback(done)

    def _checkpoint(self) -> None:
        """Keep when the nodes that are online were seen, for a server that dies."""
        now_s = self._clock.wall_s()
        edit = Edit(self._ledger.head)
        for node in self._ledger.head.nodes.values():
            if node.online:
                edit.put_node(msgspec.structs.replace(node, last_seen_s=now_s), now_s)
        self._ledger.enter(edit)

    def close(self) -> None:
        """Note who was here until now, and drop every timer."""
        self._checkpoint()
        self._closed = True
        for node_id in list(self._timers):
            self._cancel(node_id)
        for timer in (self._expiry_timer, self._checkpoint_timer):
            if timer is not None:
                timer.cancel()
