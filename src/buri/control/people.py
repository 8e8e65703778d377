"""Signing in: passwords checked, links spent, sessions opened and ended; each committed before it is told.

Passwords are hashed on threads, a few at a time and with a bounded queue; attempts are counted by where they come from
and by the name they try, so that guessing is slow from one place and from many. Where a name has signed in from before, it
still may: those who guess must not lock its owner out.
"""

from __future__ import annotations

import asyncio
import base64
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

import argon2

from buri.control.clock import Clock
from buri.control.credentials import LinkKind, LinkRecord, digest_of
from buri.control.domain import accounts, signin
from buri.control.domain.signin import Claimed
from buri.control.edit import Edit
from buri.control.ledger import Ledger
from buri.control.signinproblem import SignInProblem
from buri.control.snapshot import UserRecord
from buri.core.errors import StateError

DAY_S = 86400.0
SESSION_LIFETIME_S = 14 * DAY_S
OWNER_LINK_LIFETIME_S = 7 * DAY_S
INVITE_LIFETIME_S = 7 * DAY_S
PASSWORD_LINK_LIFETIME_S = DAY_S
TOKEN_BYTES = 32
ATTEMPTS_WINDOW_S = 300.0
MAX_ATTEMPTS_OF_A_SOURCE = 10
MAX_ATTEMPTS_ON_A_NAME = 60
MAX_HASHING = 2
MAX_WAITING = 32
_MAX_COUNTED = 4096
_T = TypeVar("_T")


class People:
    """Errors for the person at the browser are SignInProblem; those for an administrator are of core.errors."""

    def __init__(self, ledger: Ledger, clock: Clock, entropy: Callable[[int], bytes]) -> None:
        self._ledger = ledger
        self._clock = clock
        self._entropy = entropy
        self._hasher = argon2.PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)
        self._decoy = ""
        self._turn = asyncio.Semaphore(MAX_HASHING)
        self._waiting = 0
        self._attempts: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._familiar: OrderedDict[tuple[str, str], None] = OrderedDict()

    # ---- sessions -------------------------------------------------------------------------------------------------

    def user_of_session(self, token: str) -> UserRecord | None:
        """Who is signed in by a session's token; None for nobody."""
        session = self._ledger.snapshot.credentials.sessions.get(digest_of(token)) if token else None
        if session is None or session.expires_s <= self._clock.wall_s():
            return None
        return self._ledger.snapshot.users.get(session.user_id)

    async def sign_out(self, token: str) -> None:
        """End one session."""
        session = self._ledger.head.credentials.sessions.get(digest_of(token))
        if session is not None:
            edit = Edit(self._ledger.head)
            edit.remove_credential(session)
            await self._ledger.enter(edit)

    async def sign_out_everywhere(self, user: UserRecord) -> int:
        """End every session of a user; how many there were."""
        edit = Edit(self._ledger.head)
        for session in list(edit.snapshot.credentials.sessions.values()):
            if session.user_id == user.id:
                edit.remove_credential(session)
        await self._ledger.enter(edit)
        return len(edit.writes)

    async def _open(self, edit: Edit, user: UserRecord, origin: bytes = b"", replacing: str = "") -> str:
        """Commit an edit together with a new session on it; its token. The browser's former session ends."""
        token = self._token()
        former = edit.snapshot.credentials.sessions.get(digest_of(replacing)) if replacing else None
        if former is not None:
            edit.remove_credential(former)
        now_s = self._clock.wall_s()
        signin.open_session(edit, user, token, now_s=now_s, lifetime_s=SESSION_LIFETIME_S, origin=origin)
        await self._ledger.enter(edit)
        return token

    # ---- ways in --------------------------------------------------------------------------------------------------

    async def sign_in(self, name: str, password: str, source: str, *, replacing: str = "") -> str:
        """A local account's name and password to a session's token."""
        self._count(f"from {source}", MAX_ATTEMPTS_OF_A_SOURCE)
        if (name, source) not in self._familiar:
            self._count(f"name {name[: signin.MAX_TEXT].casefold()}", MAX_ATTEMPTS_ON_A_NAME)
        user = self._ledger.snapshot.user_named(name)
        record = None if user is None else self._ledger.snapshot.credentials.passwords.get(user.id)
        if not self._decoy:
            self._decoy = await self._hashing(lambda: self._hasher.hash("somebody who does not exist"))
        kept = self._decoy if record is None else record.hash
        right = await self._hashing(lambda: _verified(self._hasher, kept, password))
        head = self._ledger.head
        if not right or user is None or record is None or head.credentials.passwords.get(user.id) != record:
            raise SignInProblem("wrong-password")
        self._attempts.pop(f"from {source}", None)
        self._familiar[name, source] = None
        if len(self._familiar) > _MAX_COUNTED:
            self._familiar.popitem(last=False)
        return await self._open(Edit(head), user, replacing=replacing)

    async def enter(
        self, claimed: Claimed, *, may_come: bool, link_token: str, origin: bytes, replacing: str = ""
    ) -> str:
        """A provider's person to a session's token. `origin` marks the sign-in: it opens one session, ever."""
        head = self._ledger.head
        if any(session.origin == origin for session in head.credentials.sessions.values()):
            raise SignInProblem("replayed")
        now_s = self._clock.wall_s()
        link = None
        if link_token and (link := self.link(link_token)) is None:
            raise SignInProblem("link-over")
        edit, user = signin.enter(head, claimed, may_come=may_come, link=link, now_s=now_s)
        return await self._open(edit, user, origin, replacing)

    def link(self, token: str) -> LinkRecord | None:
        """An unspent link by its token."""
        link = self._ledger.head.credentials.links.get(digest_of(token))
        return None if link is None or link.expires_s <= self._clock.wall_s() else link

    def user_of_link(self, link: LinkRecord) -> UserRecord | None:
        return None if link.user_id is None else self._ledger.head.users.get(link.user_id)

    async def accept(self, token: str, name: str, password: str, *, replacing: str = "") -> str:
        """Spend a link by choosing a password (the owner's: a name too); a session's token."""
        link = self.link(token)
        if link is None:
            raise SignInProblem("link-over")
        user = self.user_of_link(link)
        if user is not None and link.kind != "owner":
            name = user.name
        if user is None or name != user.name:
            signin.check_name(self._ledger.head, name)
        signin.check_password(name, password)
        text = await self._hashing(lambda: self._hasher.hash(password))
        if (link := self.link(token)) is None:  # another tab was faster
            raise SignInProblem("link-over")
        edit, user = signin.accept(self._ledger.head, link, name=name, password_hash=text, now_s=self._clock.wall_s())
        return await self._open(edit, user, replacing=replacing)

    # ---- links ----------------------------------------------------------------------------------------------------

    async def owner_link(self, kept: str) -> str:
        """The token of the first owner's link: the `kept` one while it works, else a new one; "" once there is no need."""
        needed, user = signin.unclaimed_owner(self._ledger.head)
        if not needed:
            return ""
        link = self.link(kept) if kept else None
        if link is not None and link.kind == "owner" and link.user_id == (None if user is None else user.id):
            return kept
        return await self._make_link(Edit(self._ledger.head), "owner", user, OWNER_LINK_LIFETIME_S)

    async def invite(self, name: str, display_name: str = "", role: str = "") -> tuple[UserRecord, str]:
        """A user (made where there is none of the name) and the token of a link that lets them in the first time."""
        head, now_s = self._ledger.head, self._clock.wall_s()
        user = head.user_named(name)
        edit = Edit(head)
        if user is None:
            edit, user = accounts.create_user(head, name, display_name, now_s)
        elif head.credentials.can_sign_in(user.id):
            raise StateError(
                f"{user.name} can sign in already.",
                remedy=f"For a new password: buri admin users set-password-link {user.name}",
            )
        if role and role != user.role:
            granted, user = accounts.grant_role(edit.snapshot, user, role)
            edit.snapshot = granted.snapshot
            edit.writes += granted.writes
            edit.changes += granted.changes
        return user, await self._make_link(edit, "invite", user, INVITE_LIFETIME_S)

    async def password_link(self, name_or_id: str) -> tuple[UserRecord, str]:
        """The token of a link by which a user sets a (new) password."""
        user = accounts.find_user(self._ledger.head, name_or_id)
        edit = Edit(self._ledger.head)
        return user, await self._make_link(edit, "password", user, PASSWORD_LINK_LIFETIME_S)

    async def _make_link(self, edit: Edit, kind: LinkKind, user: UserRecord | None, lifetime_s: float) -> str:
        token = self._token()
        signin.make_link(edit, kind, user, token, now_s=self._clock.wall_s(), lifetime_s=lifetime_s)
        await self._ledger.enter(edit)
        return token

    # ---- means ----------------------------------------------------------------------------------------------------

    def _token(self) -> str:
        return base64.urlsafe_b64encode(self._entropy(TOKEN_BYTES)).decode().rstrip("=")

    def _count(self, what: str, most: int) -> None:
        """Count an attempt. Raises SignInProblem past `most` in a window."""
        now_s = self._clock.wall_s()
        began_s, count = self._attempts.pop(what, (now_s, 0))
        if not 0 <= now_s - began_s < ATTEMPTS_WINDOW_S:
            began_s, count = now_s, 0
        self._attempts[what] = (began_s, count + 1)
        if len(self._attempts) > _MAX_COUNTED:
            self._attempts.popitem(last=False)
        if count >= most:
            raise SignInProblem("too-many")

    async def _hashing(self, work: Callable[[], _T]) -> _T:
        if self._waiting >= MAX_WAITING:
            raise SignInProblem("busy")
        self._waiting += 1
        try:
            async with self._turn:
                return await asyncio.get_running_loop().run_in_executor(None, work)
        finally:
            self._waiting -= 1


def _verified(hasher: argon2.PasswordHasher, kept: str, password: str) -> bool:
    try:
        return hasher.verify(kept, password)
    except argon2.exceptions.VerificationError:
        return False
    except argon2.exceptions.InvalidHashError:  # a damaged row lets nobody in
        return False
