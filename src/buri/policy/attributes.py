"""Capabilities of nodes: what `nodeAttrs` and the owner's role give, as a node itself and its peers see it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from buri.policy.members import Members, Placed, place
from buri.policy.model import NodeAttr, Policy
from buri.policy.selectors import Kind
from buri.policy.tailnet import Node
from buri.wire.tailcfg.node import CapMap

DISABLE_IPV4 = "disable-ipv4"
RANDOMIZE_PORT = "randomize-client-port"
ONE_CGNAT = {"mac-always": "one-cgnat?v=true", "mac-never": "one-cgnat?v=false"}
SUGGEST_EXIT_NODE = "suggest-exit-node"
FUNNEL = "funnel"
IS_OWNER = "https://tailscale.com/cap/is-owner"
IS_ADMIN = "https://tailscale.com/cap/is-admin"
FUNNEL_PORTS = "https://tailscale.com/cap/funnel-ports?ports=443,8443,10000"
WARN_FUNNEL_NO_HTTPS = "https://tailscale.com/cap/warn-funnel-no-https"


def aims_at(attr: NodeAttr, placed: Placed, members: Members) -> bool:
    """Whether an entry is for a node: by an address of its own, never by a route behind it."""
    return any(
        bool(placed.addresses_in(selector.spans)) if selector.kind is Kind.ADDRESS else members.means(selector, placed)
        for selector in attr.targets
    )


def own_capabilities(placed: Placed, policy: Policy, members: Members, *, https: bool = False) -> CapMap:
    """What the policy gives a node. `https`: certificates are on in the tailnet, which Funnel needs."""
    found: CapMap = {}
    for attr in policy.node_attrs:
        if not aims_at(attr, placed, members):
            continue
        for name in attr.attrs:
            found.setdefault(name, None)
        for name, values in (attr.app or {}).items():
            held: list[Any] = found.get(name) or []
            found[name] = [*held, *values]
    if FUNNEL in found:
        found[FUNNEL_PORTS] = None
        if not https:
            found[WARN_FUNNEL_NO_HTTPS] = None
    if policy.randomize_client_port:
        found.setdefault(RANDOMIZE_PORT, None)
    if policy.disable_ipv4:
        found.setdefault(DISABLE_IPV4, None)
    if policy.one_cgnat_route and placed.node.attributes.get("node:os") == "macos":
        found.setdefault(ONE_CGNAT[policy.one_cgnat_route], None)
    return found | _role_capabilities(placed, policy, members)


def _role_capabilities(placed: Placed, policy: Policy, members: Members) -> CapMap:
    """Owner and admin marks. A tagged node counts as the owner's when no tag of it is somebody else's."""
    node = placed.node
    roles = {user.id: user.role for user in members.users}
    if not node.tags:
        role = "member" if node.user_id is None else roles.get(node.user_id, "member")
        marks: CapMap = {IS_OWNER: None} if role == "owner" else {}
        return marks | ({IS_ADMIN: None} if role in ("owner", "admin") else {})
    for tag in node.tags:
        owners = policy.tag_owners.get(tag, ())
        if owners and not any(_is_owner(word, policy, members, roles) for word in owners):
            return {}
    return {IS_OWNER: None}


def _is_owner(word: str, policy: Policy, members: Members, roles: Mapping[int, str]) -> bool:
    if word.startswith(("tag:", "autogroup:")):
        return True
    logins = policy.groups.get(word, (word,))
    return any(roles.get(user_id) == "owner" for login in logins if (user_id := members.user_id(login)) is not None)


def ip_pools(node: Node, policy: Policy, members: Members) -> tuple[str, ...]:
    """The pools of all entries for a node, in the order of the file; it may be one that is not there yet."""
    placed = place(node, 0)  # its slot is not asked for
    return tuple(
        pool for attr in policy.node_attrs if attr.ip_pool and aims_at(attr, placed, members) for pool in attr.ip_pool
    )


def uses_ipv4(node: Node, policy: Policy, members: Members) -> bool:
    """Whether a node keeps its IPv4 address."""
    if policy.disable_ipv4:
        return False
    takers = [attr for attr in policy.node_attrs if DISABLE_IPV4 in attr.attrs]
    if not takers:
        return True
    placed = place(node, 0)  # its slot is not asked for
    return not any(aims_at(attr, placed, members) for attr in takers)
