"""The tailnet a policy is joined with: its users and nodes, as far as a policy asks about them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from buri.policy.posture import AttributeValue

Role = Literal["owner", "admin", "it-admin", "network-admin", "billing-admin", "auditor", "member"]


class User(msgspec.Struct, frozen=True):
    """A person; `login` is what policies write ("alice@example.com", or "alice@" for a name without a domain)."""

    id: int
    login: str
    role: Role = "member"

    @property
    def localpart(self) -> str:
        return self.login.partition("@")[0]

    @property
    def domain(self) -> str:
        return self.login.partition("@")[2]


class Node(msgspec.Struct, frozen=True):
    """A node; `user_id` is None when it is tagged. `approved` are the routes it may carry now, as CIDRs.

    `created_s` orders routers of one route: the first registered is the primary one, of those `online`.
    """

    id: int
    user_id: int | None
    tags: tuple[str, ...]
    ipv4: str
    ipv6: str
    approved: tuple[str, ...] = ()
    created_s: float = 0.0
    online: bool = True
    attributes: Mapping[str, AttributeValue] = {}


class Tailnet(msgspec.Struct, frozen=True):
    users: tuple[User, ...]
    nodes: tuple[Node, ...]

    @property
    def domains(self) -> frozenset[str]:
        """The mail domains that belong to this tailnet: its owners'. Others' users are guests."""
        return frozenset(user.domain for user in self.users if user.role == "owner" and user.domain)
