"""Who becomes which user: identities, invitations and one-time links, decided without IO.

People are keyed by (issuer, subject) and never merged by e-mail. A verified address gives a new person their name, for
policies name people by it; whoever else comes with the same address, and whoever's address nobody vouches for, gets
a name without a domain, which no policy can have meant.
"""

from __future__ import annotations

import re

import msgspec

from buri.control.credentials import IdentityRecord, LinkKind, LinkRecord, PasswordRecord, SessionRecord, digest_of
from buri.control.domain import accounts
from buri.control.edit import Edit
from buri.control.signinproblem import SignInProblem
from buri.control.snapshot import Snapshot, UserRecord
from buri.core.errors import ConfigError, StateError

LEAST_PASSWORD = 10
MOST_PASSWORD = 512
MAX_SESSIONS_OF_A_USER = 40
MAX_TEXT = 120
_UNFIT = re.compile(r"[^a-z0-9._+-]+")
_EMAIL = re.compile(r"[a-z0-9][a-z0-9._+-]*@[a-z0-9-]+(\.[a-z0-9-]+)+")


class Claimed(msgspec.Struct, frozen=True):
    """What a provider vouches for. `email_trusted`: the address is proven to be theirs; `label` is the provider's name."""

    provider: str
    label: str
    issuer: str
    subject: str
    email: str = ""
    email_trusted: bool = False
    username: str = ""
    display_name: str = ""
    picture: str = ""

    @property
    def who(self) -> str:
        """How a refusal calls them."""
        return clean(self.email or self.username or self.display_name) or f"This account at {self.label}"


def clean(text: str) -> str:
    """A stranger's words made fit to show: one line, nothing that does not print, not endless."""
    return " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * MAX_TEXT]).split())[:MAX_TEXT]


def enter(
    snapshot: Snapshot, claimed: Claimed, *, may_come: bool, link: LinkRecord | None, now_s: float
) -> tuple[Edit, UserRecord]:
    """The user that a provider's person is, or becomes. Raises SignInProblem."""
    identity = snapshot.credentials.identities.get((claimed.issuer, claimed.subject))
    edit = Edit(snapshot)
    if link is not None:
        user = _by_link(edit, claimed, link, identity, now_s)
    elif not may_come and not (identity is not None and identity.invited):
        raise SignInProblem("not-allowed", who=claimed.who)
    elif identity is not None:
        user = snapshot.users[identity.user_id]
    else:
        user = _add_user(edit, user_name(snapshot, claimed), clean(claimed.display_name), now_s, owner=False)
    email = clean(claimed.email)
    edit.put_credential(
        IdentityRecord(
            issuer=claimed.issuer,
            subject=claimed.subject,
            user_id=user.id,
            email=email,
            invited=link is not None or (identity is not None and identity.invited),
            created_s=now_s if identity is None else identity.created_s,
            used_s=now_s,
        )
    )
    shown = msgspec.structs.replace(user, email=email or user.email, picture=_picture(claimed) or user.picture)
    if shown != user:
        edit.put_user(shown)
    return edit, shown


def _by_link(
    edit: Edit, claimed: Claimed, link: LinkRecord, identity: IdentityRecord | None, now_s: float
) -> UserRecord:
    if link.kind == "password":
        raise SignInProblem("link-over")
    if identity is not None and link.user_id not in (None, identity.user_id):
        raise SignInProblem("identity-taken", who=claimed.who, provider=claimed.label)
    edit.remove_credential(link)
    if identity is not None:
        user = edit.snapshot.users[identity.user_id]
    elif link.user_id is not None:
        user = edit.snapshot.users[link.user_id]
    else:
        name = user_name(edit.snapshot, claimed)
        return _add_user(edit, name, clean(claimed.display_name), now_s, owner=True)
    return _promoted(edit, user, link)


def accept(
    snapshot: Snapshot, link: LinkRecord, *, name: str, password_hash: str, now_s: float
) -> tuple[Edit, UserRecord]:
    """Set the password of a link's user, spending the link. Only the owner's link lets choose a name."""
    edit = Edit(snapshot)
    edit.remove_credential(link)
    if link.user_id is None:
        user = _add_user(edit, name, "", now_s, owner=True)
    else:
        user = snapshot.users[link.user_id]
        if link.kind == "owner" and name != user.name:
            check_name(edit.snapshot, name)
            shown = name if user.display_name == user.name else user.display_name
            user = msgspec.structs.replace(user, name=name, display_name=shown)
            edit.put_user(user)
        user = _promoted(edit, user, link)
    for session in snapshot.credentials.sessions.values():
        if session.user_id == user.id:  # whoever knew the old password is out
            edit.remove_credential(session)
    edit.put_credential(PasswordRecord(user.id, password_hash, now_s))
    return edit, user


def _promoted(edit: Edit, user: UserRecord, link: LinkRecord) -> UserRecord:
    """The owner's link makes an owner of whoever has it."""
    if link.kind == "owner" and user.role != "owner":
        user = msgspec.structs.replace(user, role="owner")
        edit.put_user(user)
    return user


def _add_user(edit: Edit, name: str, display_name: str, now_s: float, *, owner: bool) -> UserRecord:
    check_name(edit.snapshot, name)
    made, user = accounts.create_user(edit.snapshot, name, display_name, now_s, "owner" if owner else "member")
    edit.snapshot = made.snapshot
    edit.writes += made.writes
    edit.changes += made.changes
    return user


def check_name(snapshot: Snapshot, name: str) -> None:
    """Raises SignInProblem for a name that nobody can have."""
    try:
        accounts.check_user_name(snapshot, name)
    except ConfigError as error:
        raise SignInProblem("name-unfit") from error
    except StateError as error:
        raise SignInProblem("name-taken") from error


def check_password(name: str, password: str) -> None:
    """Raises SignInProblem for a password that protects nothing."""
    if len(password) < LEAST_PASSWORD:
        raise SignInProblem("password-short", least=str(LEAST_PASSWORD))
    if len(password) > MOST_PASSWORD:
        raise SignInProblem("password-long", most=str(MOST_PASSWORD))
    if password.casefold() == name.casefold():
        raise SignInProblem("password-name")


def user_name(snapshot: Snapshot, claimed: Claimed) -> str:
    """A free name for a new person."""
    email = claimed.email.lower()
    trusted = claimed.email_trusted and _EMAIL.fullmatch(email) is not None and len(email) <= accounts.MAX_USER_NAME
    if trusted and snapshot.user_named(email) is None:
        return email
    words = claimed.username or email or claimed.display_name
    local = _UNFIT.sub("-", words.partition("@")[0].lower()).strip("._+-")[:40] or "person"
    base = f"{local}-{_UNFIT.sub('-', claimed.provider.lower())}"
    number, name = 1, base
    while snapshot.user_named(name) is not None:
        number += 1
        name = f"{base}-{number}"
    return name


def open_session(edit: Edit, user: UserRecord, token: str, *, now_s: float, lifetime_s: float, origin: bytes) -> None:
    """Add a session to an edit; what is over goes, and past a bound the user's oldest."""
    for ended in list(edit.snapshot.credentials.ended(now_s)):
        edit.remove_credential(ended)
    own = sorted(
        (one for one in edit.snapshot.credentials.sessions.values() if one.user_id == user.id),
        key=lambda one: one.created_s,
    )
    for oldest in own[: max(0, len(own) + 1 - MAX_SESSIONS_OF_A_USER)]:
        edit.remove_credential(oldest)
    edit.put_credential(SessionRecord(digest_of(token), user.id, now_s, now_s + lifetime_s, origin))


def make_link(
    edit: Edit, kind: LinkKind, user: UserRecord | None, token: str, *, now_s: float, lifetime_s: float
) -> LinkRecord:
    """Add a link to an edit; an older one of its kind for the same user works no more."""
    user_id = None if user is None else user.id
    for old in list(edit.snapshot.credentials.links.values()):
        if old.expires_s <= now_s or old.kind == kind == "owner" or (old.kind, old.user_id) == (kind, user_id):
            edit.remove_credential(old)
    link = LinkRecord(digest_of(token), kind, user_id, now_s, now_s + lifetime_s)
    edit.put_credential(link)
    return link


def unclaimed_owner(snapshot: Snapshot) -> tuple[bool, UserRecord | None]:
    """Whether no owner can sign in yet, and the user who will own the tailnet then (None: there is nobody)."""
    owners = [user for _, user in sorted(snapshot.users.items()) if user.role == "owner"]
    if any(snapshot.credentials.can_sign_in(user.id) for user in owners):
        return False, None
    return True, owners[0] if owners else None


def _picture(claimed: Claimed) -> str:
    url = claimed.picture
    return url if url.startswith("https://") and len(url) <= 1024 and url.isascii() and url.isprintable() else ""
