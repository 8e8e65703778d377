"""Who becomes which user, and what nobody may be called."""

from __future__ import annotations

import msgspec
import pytest

from buri.control.domain import accounts, rights, signin
from buri.control.domain.signin import Claimed
from buri.control.edit import Edit
from buri.control.signinproblem import SignInProblem
from buri.control.snapshot import Snapshot, UserRecord
from buri.testing.controlworld import empty_snapshot

ALICE = Claimed(
    "home", "Home", "https://id.example", "1", "Alice@Example.com", True, "alice", " Alice\n\x00A. ", "https://p/1"
)


def entered(snapshot: Snapshot, claimed: Claimed, *, may_come: bool = True) -> tuple[Snapshot, UserRecord]:
    edit, user = signin.enter(snapshot, claimed, may_come=may_come, link=None, now_s=1.0)
    return edit.snapshot, user


def test_a_new_person_is_called_by_their_proven_address_and_is_no_owner() -> None:
    snapshot, user = entered(empty_snapshot(), ALICE)
    assert (user.name, user.display_name, user.role) == ("alice@example.com", "Alice A.", "member")
    assert (user.email, user.picture) == ("Alice@Example.com", "https://p/1")
    again, same = entered(snapshot, ALICE)
    assert (same.id, len(again.users)) == (user.id, 1)


def test_an_unproven_or_taken_address_gives_a_name_that_no_policy_can_have_meant() -> None:
    snapshot, _ = entered(empty_snapshot(), ALICE)
    for claimed, name in (
        (msgspec.structs.replace(ALICE, subject="2"), "alice-home"),
        (msgspec.structs.replace(ALICE, subject="3", email_trusted=False), "alice-home-2"),
        (msgspec.structs.replace(ALICE, subject="4", provider="work", email="", username=""), "alice-a-work"),
        (Claimed("home", "Home", "i", "5"), "person-home"),
        (Claimed("home", "Home", "i", "6", username="@@@", email="<script>@x"), "person-home-2"),
        (Claimed("home", "Home", "i", "7", email="bob@example.com' OR 1", email_trusted=True), "bob-home"),
        (Claimed("home", "Home", "i", "8", username="ボブ", display_name="Bob"), "person-home-3"),
    ):
        snapshot, user = entered(snapshot, claimed)
        assert user.name == name
        assert user.login.endswith("@")


def test_the_same_subject_at_another_issuer_is_another_person() -> None:
    snapshot, one = entered(empty_snapshot(), ALICE)
    _, other = entered(snapshot, msgspec.structs.replace(ALICE, issuer="https://other.example"))
    assert one.id != other.id


def test_who_was_let_in_once_is_asked_again_whether_they_may_come() -> None:
    snapshot, _ = entered(empty_snapshot(), ALICE)
    with pytest.raises(SignInProblem, match="may not sign in here"):
        entered(snapshot, ALICE, may_come=False)


def test_a_deleted_persons_credentials_go_with_them() -> None:
    snapshot, user = entered(empty_snapshot(), ALICE)
    edit = Edit(snapshot)
    signin.open_session(edit, user, "token", now_s=1.0, lifetime_s=10.0, origin=b"")
    signin.make_link(edit, "password", user, "link", now_s=1.0, lifetime_s=10.0)
    gone = accounts.delete_user(edit.snapshot, user).snapshot
    assert list(gone.credentials.of_user(user.id)) == []
    assert gone.users == {}


def test_sessions_of_a_person_are_bounded_and_ended_ones_swept() -> None:
    snapshot, user = entered(empty_snapshot(), ALICE)
    edit = Edit(snapshot)
    for number in range(signin.MAX_SESSIONS_OF_A_USER + 5):
        signin.open_session(edit, user, f"t{number}", now_s=float(number), lifetime_s=1000.0, origin=b"")
    assert len(edit.snapshot.credentials.sessions) == signin.MAX_SESSIONS_OF_A_USER
    signin.open_session(edit, user, "late", now_s=5000.0, lifetime_s=1000.0, origin=b"")
    assert len(edit.snapshot.credentials.sessions) == 1


@pytest.mark.parametrize("password", ["", "short", "ALICE-in-wonderland", "x" * 513])
def test_a_password_that_protects_nothing_is_refused(password: str) -> None:
    with pytest.raises(SignInProblem):
        signin.check_password("alice-in-wonderland", password)


def test_pictures_are_addresses_or_nothing() -> None:
    for picture in ("http://p/1", "javascript:alert(1)", "https://p/\n", "https://" + "p" * 2000, "https://é/"):
        _, user = entered(empty_snapshot(), msgspec.structs.replace(ALICE, picture=picture))
        assert user.picture == ""


def test_rights_follow_the_role() -> None:
    owner, admin, member = (
        UserRecord(number, name, name, 1.0, name)  # type: ignore[arg-type]  # the names are roles
        for number, name in enumerate(("owner", "admin", "member"), 1)
    )
    assert [rights.administers(user) for user in (owner, admin, member)] == [True, True, False]
    assert rights.may_grant(owner, admin, "owner")
    assert rights.may_grant(admin, member, "admin")
    assert not rights.may_grant(admin, member, "owner")
    assert not rights.may_grant(admin, owner, "member")
    assert not rights.may_grant(member, member, "admin")
