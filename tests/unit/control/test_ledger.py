"""Decide, commit, publish: in this order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from buri.control.changes import Change
from buri.control.domain import accounts
from buri.control.edit import Edit, PutUser
from buri.control.ledger import Ledger
from buri.control.snapshot import Snapshot
from buri.core.errors import StateError, SystemFault
from buri.testing.controlworld import FakeCommitLog, derp_map, empty_snapshot


def create(ledger: Ledger, name: str) -> asyncio.Future[None]:
    edit, _ = accounts.create_user(ledger.head, name, "", 0.0)
    return ledger.enter(edit)


def test_nothing_is_published_before_it_is_committed() -> None:
    async def scenario() -> None:
        journal = FakeCommitLog(held=True)
        ledger = Ledger(empty_snapshot(), journal)
        done = create(ledger, "alice")
        assert ledger.head.user_named("alice") is not None
        assert ledger.snapshot.user_named("alice") is None
        assert not done.done()
        journal.release()
        assert done.done()
        assert ledger.snapshot.user_named("alice") is not None
        assert any(isinstance(write, PutUser) for write in journal.written)

    asyncio.run(scenario())


def test_a_failure_takes_back_everything_that_was_built_on_it() -> None:
    async def scenario() -> None:
        journal = FakeCommitLog(held=True)
        ledger = Ledger(empty_snapshot(), journal)
        waiting = [create(ledger, "alice"), create(ledger, "bob")]
        journal.fail_with = SystemFault("The disk is full.")
        journal.release()
        for future in waiting:
            with pytest.raises(SystemFault, match="full"):
                await future
        assert ledger.head is ledger.snapshot
        journal.fail_with, journal.held = None, False
        await create(ledger, "alice")
        assert [user.id for user in ledger.snapshot.users.values()] == [1]

    asyncio.run(scenario())


def test_what_needs_no_writing_keeps_its_place_in_the_order() -> None:
    async def scenario() -> None:
        journal = FakeCommitLog(held=True)
        ledger = Ledger(empty_snapshot(), journal)
        seen: list[Sequence[Change]] = []

        def note(_snapshot: Snapshot, changes: Sequence[Change]) -> None:
            seen.append(changes)

        ledger.subscribe(note)
        create(ledger, "alice")
        edit = Edit(ledger.head)
        edit.put_derp_map(derp_map(7))
        volatile = ledger.enter(edit)
        assert not volatile.done()
        assert seen == []
        journal.release()
        assert volatile.done()
        assert len(seen) == 1
        assert ledger.snapshot.user_named("alice") is not None
        assert ledger.snapshot.derp_map == derp_map(7)

    asyncio.run(scenario())


def test_a_caller_that_went_away_does_not_undo_its_change() -> None:
    async def scenario() -> None:
        journal = FakeCommitLog(held=True)
        ledger = Ledger(empty_snapshot(), journal)
        create(ledger, "alice").cancel()
        journal.release()
        assert ledger.snapshot.user_named("alice") is not None

    asyncio.run(scenario())


def test_a_subscriber_that_fails_leaves_nobody_waiting() -> None:
    async def scenario() -> None:
        def broken(_snapshot: Snapshot, _changes: Sequence[Change]) -> None:
            raise ValueError("a bug")

        journal = FakeCommitLog(held=True)
        ledger = Ledger(empty_snapshot(), journal)
        ledger.subscribe(broken)
        edit, _ = accounts.create_user(ledger.head, "alice", "", 0.0)
        edit.put_derp_map(derp_map(7))
        first = ledger.enter(edit)
        with pytest.raises(ValueError, match="a bug"):
            journal.release()
        assert first.done()
        assert ledger.snapshot is ledger.head

    asyncio.run(scenario())


def test_a_closed_ledger_refuses() -> None:
    async def scenario() -> None:
        ledger = Ledger(empty_snapshot(), FakeCommitLog())
        ledger.close()
        with pytest.raises(StateError, match="stopping"):
            await create(ledger, "alice")

    asyncio.run(scenario())
