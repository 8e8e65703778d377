"""Pre-auth keys: `buri-auth-PREFIX-SECRET`. The prefix is public and finds the record; only a digest is kept.

SHA-256 is enough for a secret of 256 random bits: there is nothing to guess, so nothing for a slow hash to slow down.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

from buri.control.snapshot import AuthKeyRecord, Snapshot

HEAD = "buri-auth"
PREFIX_BYTES = 6
SECRET_BYTES = 32
ENTROPY_BYTES = PREFIX_BYTES + SECRET_BYTES


def make(entropy: bytes) -> tuple[str, str, bytes]:
    """(key for the user, public prefix, digest for the store) from 38 random bytes."""
    prefix = entropy[:PREFIX_BYTES].hex()
    secret = base64.b32encode(entropy[PREFIX_BYTES:ENTROPY_BYTES]).decode().rstrip("=").lower()
    key = f"{HEAD}-{prefix}-{secret}"
    return key, prefix, digest(key)


def digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def find(snapshot: Snapshot, key: str) -> AuthKeyRecord | None:
    """The record of a key that somebody presents; None when no such key was ever made or it was deleted."""
    head, _, rest = key.strip().partition(f"{HEAD}-")
    prefix = rest.partition("-")[0]
    key_id = None if head else snapshot.by_auth_prefix.get(prefix)
    record = None if key_id is None else snapshot.auth_keys[key_id]
    if record is None or not hmac.compare_digest(record.digest, digest(key.strip())):
        return None
    return record


def objection(record: AuthKeyRecord, now_s: float) -> str:
    """Why a known key may not be used now, as the user reads it; "" when it may."""
    remedy = "Ask the administrator for a new one (buri admin preauthkeys create)."
    match state(record, now_s):
        case "revoked":
            return f"auth key revoked: {record.prefix} was withdrawn. {remedy}"
        case "expired":
            return f"auth key expired: {record.prefix} was good until a time that is past. {remedy}"
        case "used":
            return f"auth key already used: {record.prefix} was good for one node. {remedy}"
        case _:
            return ""


UNKNOWN = "auth key not valid: this server does not know it. Check that it was copied whole and made on this server."


def ended_s(record: AuthKeyRecord) -> float | None:
    """Since when, or from when on, nobody joins by this key; None for one without an end."""
    ends = [record.revoked_s, record.expires_s, 0.0 if record.reusable else record.used_s]
    return min((end for end in ends if end), default=None)


def state(record: AuthKeyRecord, now_s: float) -> str:
    """One word for lists: valid, used, expired or revoked."""
    if record.revoked_s:
        return "revoked"
    if record.expires_s and record.expires_s <= now_s:
        return "expired"
    return "used" if record.used_s and not record.reusable else "valid"
