"""Pre-auth keys."""

from __future__ import annotations

import msgspec
import pytest

from buri.control.domain import authkeys
from buri.control.snapshot import AuthKeyRecord
from buri.testing.controlworld import START_S, empty_snapshot

ENTROPY = bytes(range(authkeys.ENTROPY_BYTES))
KEY, PREFIX, DIGEST = authkeys.make(ENTROPY)
RECORD = AuthKeyRecord(
    id=1,
    prefix=PREFIX,
    digest=DIGEST,
    user_id=1,
    tags=(),
    reusable=False,
    ephemeral=False,
    created_s=START_S,
    expires_s=START_S + 60,
)


def test_a_key_is_found_by_its_text() -> None:
    snapshot = empty_snapshot().with_auth_key(RECORD)
    assert authkeys.find(snapshot, KEY) == RECORD
    assert authkeys.find(snapshot, f"  {KEY}\n") == RECORD


@pytest.mark.parametrize("text", ["", "tskey-auth-abc", KEY[:-1], KEY + "a", "x" + KEY, f"buri-auth-{PREFIX}-"])
def test_any_other_text_is_no_key(text: str) -> None:
    assert authkeys.find(empty_snapshot().with_auth_key(RECORD), text) is None


def test_the_record_holds_nothing_of_the_secret() -> None:
    secret = KEY.rpartition("-")[2]
    assert secret not in repr(RECORD)


@pytest.mark.parametrize(
    ("changes", "now_s", "words"),
    [
        ({}, START_S, ""),
        ({}, START_S + 60, "auth key expired"),
        ({"expires_s": 0.0}, START_S + 1e9, ""),
        ({"used_s": 1.0}, START_S, "auth key already used"),
        ({"used_s": 1.0, "reusable": True}, START_S, ""),
        ({"revoked_s": 1.0}, START_S, "auth key revoked"),
    ],
)
def test_what_speaks_against_a_key(changes: dict[str, object], now_s: float, words: str) -> None:
    objection = authkeys.objection(msgspec.structs.replace(RECORD, **changes), now_s)
    assert objection.startswith(words)
    assert bool(objection) == bool(words)
