"""How people prove who they are: identities at providers, passwords, sessions, one-time links.

Part of the snapshot, immutable like the rest. Secrets are not here: of a session and a link only the SHA-256 of its
random token is kept, of a password its argon2 hash. An identity is (issuer, subject), never an e-mail address.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator, Mapping
from typing import Literal

import msgspec

LinkKind = Literal["owner", "invite", "password"]


class IdentityRecord(msgspec.Struct, frozen=True):
    """A person at a provider. `invited`: a link let them in, so the lists of whom a provider may bring do not count."""

    issuer: str
    subject: str
    user_id: int
    email: str
    invited: bool
    created_s: float
    used_s: float


class PasswordRecord(msgspec.Struct, frozen=True):
    """A user's password as argon2's own text (parameters, salt, hash)."""

    user_id: int
    hash: str
    changed_s: float


class SessionRecord(msgspec.Struct, frozen=True):
    """A browser that somebody signed in on. `origin`: digest of the OIDC state it came from, b"" = none."""

    digest: bytes
    user_id: int
    created_s: float
    expires_s: float
    origin: bytes = b""


class LinkRecord(msgspec.Struct, frozen=True):
    """A link that works once. `user_id` None: whoever follows it becomes the first user, and the tailnet's owner."""

    digest: bytes
    kind: LinkKind
    user_id: int | None
    created_s: float
    expires_s: float


Credential = IdentityRecord | PasswordRecord | SessionRecord | LinkRecord


def digest_of(token: str) -> bytes:
    """What is kept of a random token: there is nothing to guess in 160 bits and more, so no slow hash is needed."""
    return hashlib.sha256(token.encode()).digest()


class Credentials(msgspec.Struct, frozen=True):
    """All of a tailnet's, each kind by what finds it."""

    identities: Mapping[tuple[str, str], IdentityRecord] = {}
    passwords: Mapping[int, PasswordRecord] = {}
    sessions: Mapping[bytes, SessionRecord] = {}
    links: Mapping[bytes, LinkRecord] = {}

    @classmethod
    def build(cls, records: list[Credential]) -> Credentials:
        """Index what the store holds."""
        kinds: dict[str, dict[Hashable, Credential]] = {}
        for record in records:
            kind, key = _place(record)
            kinds.setdefault(kind, {})[key] = record
        return cls(**kinds)  # type: ignore[arg-type]  # _place keeps each kind to its own

    def having(self, record: Credential) -> Credentials:
        """With a record added or replaced."""
        kind, key = _place(record)
        return msgspec.structs.replace(self, **{kind: {**getattr(self, kind), key: record}})

    def lacking(self, record: Credential) -> Credentials:
        kind, key = _place(record)
        return msgspec.structs.replace(self, **{kind: {k: v for k, v in getattr(self, kind).items() if k != key}})

    def of_user(self, user_id: int) -> Iterator[Credential]:
        """Everything that leads to a user."""
        kinds: tuple[Mapping[Hashable, Credential], ...] = (
            self.identities,
            self.passwords,
            self.sessions,
            self.links,
        )  # type: ignore[assignment]  # a mapping is invariant in its keys, and is only read here
        for records in kinds:
            yield from (record for record in records.values() if record.user_id == user_id)

    def can_sign_in(self, user_id: int) -> bool:
        """Whether a user has a way in that lasts: a password or an identity."""
        return user_id in self.passwords or any(one.user_id == user_id for one in self.identities.values())

    def ended(self, now_s: float) -> Iterator[SessionRecord | LinkRecord]:
        """Sessions and links whose time is over."""
        yield from (session for session in self.sessions.values() if session.expires_s <= now_s)
        yield from (link for link in self.links.values() if link.expires_s <= now_s)


def _place(record: Credential) -> tuple[str, Hashable]:
    match record:
        case IdentityRecord():
            return "identities", (record.issuer, record.subject)
        case PasswordRecord():
            return "passwords", record.user_id
        case SessionRecord():
            return "sessions", record.digest
        case LinkRecord():
            return "links", record.digest
