"""Who may give which tags to a node: the policy's `tagOwners`."""

from __future__ import annotations

from buri.control.snapshot import UserRecord
from buri.policy.model import Policy
from buri.policy.selectors import MEMBER, ROLES


def owns(policy: Policy, user: UserRecord, tag: str) -> bool:
    """Whether a user may give a tag: by name, by group, by role, or as owner of a tag that owns it."""
    return _owns(policy, user, tag, frozenset())


def _owns(policy: Policy, user: UserRecord, tag: str, asked: frozenset[str]) -> bool:
    return tag not in asked and any(
        _owns(policy, user, word, asked | {tag}) if word.startswith("tag:") else _names(policy, user, word)
        for word in policy.tag_owners.get(tag, ())
    )


def _names(policy: Policy, user: UserRecord, word: str) -> bool:
    if word.startswith("group:"):
        return user.login in policy.groups.get(word, ())
    if word in (MEMBER, "autogroup:members"):
        return True
    return user.role in ROLES.get(word, ()) or word == user.login
