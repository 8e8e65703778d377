"""Who or what a policy means: users, groups, tags, hosts, addresses, autogroups.

A selector is text with its kind worked out once. What it stands for in a tailnet is `members.py`'s business.
"""

from __future__ import annotations

import enum

import msgspec

from buri.policy.spans import Span, literal_of, parse_span


class Kind(enum.Enum):
    EVERYONE = "*"
    USER = "user"
    DOMAIN = "user:*@"  # every user of a mail domain; SSH rules alone
    GROUP = "group"
    TAG = "tag"
    AUTOGROUP = "autogroup"
    SERVICE = "svc"  # a service with an address of its own; no node has it
    ADDRESS = "address"  # an IP, CIDR, range, host or ipset, resolved to spans


class Selector(msgspec.Struct, frozen=True, cache_hash=True, gc=False):
    """`text` is what the file says; `name` is what it stands for (a mail address, a tag …); `spans` for addresses.

    `literals` are the words a filter rule uses for those spans.
    """

    kind: Kind
    text: str
    name: str
    spans: tuple[Span, ...] = ()
    literals: tuple[str, ...] = ()


EVERYONE = Selector(Kind.EVERYONE, "*", "*")

INTERNET, SELF, MEMBER, TAGGED, DANGER_ALL, NONROOT = (
    f"autogroup:{name}" for name in ("internet", "self", "member", "tagged", "danger-all", "nonroot")
)
ROLES = {
    "autogroup:owner": ("owner",),
    "autogroup:admin": ("owner", "admin"),
    "autogroup:it-admin": ("it-admin",),
    "autogroup:network-admin": ("network-admin",),
    "autogroup:billing-admin": ("billing-admin",),
    "autogroup:auditor": ("auditor",),
}
"""Roles whose holders an autogroup gathers; the owner is an admin (seen in the captures)."""
AUTOGROUPS = frozenset(
    {INTERNET, SELF, MEMBER, "autogroup:members", TAGGED, DANGER_ALL, NONROOT, "autogroup:shared", *ROLES}
)


def tag_fault(tag: str) -> str | None:
    """Why a tag's name is not allowed, in the words of tailcfg.CheckTag; None when it is."""
    name = tag.removeprefix("tag:")
    if name == tag:
        return "tags must start with 'tag:'"
    if not name:
        return "tag names must not be empty"
    if not (name[0].isascii() and name[0].isalpha()):
        return "tag names must start with a letter, after 'tag:'"
    if not all(char.isascii() and (char.isalnum() or char == "-") for char in name):
        return "tag names can only contain numbers, letters, or dashes"
    return None


def address_selector(text: str, value: str) -> Selector:
    """A selector of one address, CIDR or range "a-b"; raises WireError. `text` is the file's name for it."""
    one = parse_span(value)
    return Selector(Kind.ADDRESS, text, value, (one,), (one.text if one.is_host else literal_of(value, one),))
