"""The netmap as an immutable value, and what one MapResponse makes of it.

Wire reference 1a ("/machine/map"); upstream: tailscale `control/controlclient/map.go`. In a MapResponse, absent and
null mean "unchanged"; an empty list is a statement. `apply` never changes a netmap: it returns a new one that shares
what did not change, and says narrowly what did, so that the layer above redoes no more than it must.

Invariants: every Node in a netmap is normalised (`allowed_ips` never None, `home_derp` set from the legacy text); nodes
are never mutated after they are in a netmap, so "same object" means "nothing changed".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from buri.core.errors import WireError
from buri.wire.tailcfg.base import format_time
from buri.wire.tailcfg.derpmap import DERPMap
from buri.wire.tailcfg.dns import DNSConfig
from buri.wire.tailcfg.filter import FilterRule
from buri.wire.tailcfg.mapping import ClientVersion, Debug, DisplayMessage, MapResponse
from buri.wire.tailcfg.node import Node, PeerChange, UserProfile

LEGACY_DERP_PREFIX = "127.3.3.40:"
BASE_FILTER = "base"  # the name of the filter that the older PacketFilter field carries


class Netmap(msgspec.Struct, frozen=True, kw_only=True):
    """All a node was told of its tailnet. `peers` by node ID, `users` by user ID; treat every part as read-only."""

    self_node: Node
    peers: dict[int, Node] = {}
    derp_map: DERPMap = msgspec.field(default_factory=DERPMap)
    dns: DNSConfig = msgspec.field(default_factory=DNSConfig)
    domain: str = ""
    packet_filters: dict[str, list[FilterRule]] = {}
    users: dict[int, UserProfile] = {}
    health: tuple[str, ...] = ()
    display_messages: dict[str, DisplayMessage] = {}
    ssh_policy: Any = None
    collect_services: bool = False
    debug: Debug | None = None
    client_version: ClientVersion | None = None

    def filter_rules(self) -> list[FilterRule]:
        """All filter rules, named filters in the order of their names."""
        return [rule for name in sorted(self.packet_filters) for rule in self.packet_filters[name]]


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What one response changed.

    `upserted`: peers new, or changed in keys, addresses or rights. `patched`: peers of which only endpoints, home
    relay, online or last-seen changed. `removed`: the nodes as they were.
    """

    self_node: bool = False
    derp_map: bool = False
    dns: bool = False
    filters: bool = False
    users: bool = False
    health: bool = False
    other: bool = False
    upserted: frozenset[int] = frozenset()
    patched: frozenset[int] = frozenset()
    removed: tuple[Node, ...] = ()

    @property
    def peers(self) -> bool:
        """Whether anything about any peer changed."""
        return bool(self.upserted or self.patched or self.removed)

    def __bool__(self) -> bool:
        return self.peers or any(
            (self.self_node, self.derp_map, self.dns, self.filters, self.users, self.health, self.other)
        )


def apply(old: Netmap | None, response: MapResponse, wall_s: float) -> tuple[Netmap, Change]:
    """Apply one response (keepalives may be given too); `wall_s` is the time "now" of a peer that was just seen.

    Raises WireError when the first response of a session holds no Node: the netmap would be of nobody.
    """
    node = response.node
    began = old is None
    if old is None:
        if node is UNSET or node is None:
            raise WireError("The control server's first map message does not hold this node.")
        old = Netmap(self_node=normalise(node))
    netmap = old
    changed: dict[str, bool] = {}

    def put(name: str, what: str, value: Any) -> None:
        nonlocal netmap
        if getattr(netmap, name) == value and not began:
            return  # headscale says much again with every join
        netmap = replace(netmap, **{name: value})
        changed[what] = True

    if node is not UNSET and node is not None:
        put("self_node", "self_node", normalise(node))
    if response.derp_map is not UNSET and response.derp_map is not None:
        put("derp_map", "derp_map", _merge_derp_map(netmap.derp_map, response.derp_map))
    if response.dns_config is not UNSET and response.dns_config is not None:
        put("dns", "dns", response.dns_config)
    if response.domain:
        put("domain", "other", response.domain)
    filters = _merge_filters(netmap.packet_filters, response)
    if filters is not None:
        put("packet_filters", "filters", filters)
    if response.user_profiles is not UNSET and response.user_profiles:
        put("users", "users", {**netmap.users, **{user.id: user for user in response.user_profiles}})
    if response.health is not UNSET and response.health is not None:
        put("health", "health", tuple(response.health))
    if response.display_messages is not UNSET and response.display_messages is not None:
        put("display_messages", "health", _patch(netmap.display_messages, response.display_messages))
    if response.ssh_policy is not UNSET and response.ssh_policy is not None:
        put("ssh_policy", "other", response.ssh_policy)
    if response.collect_services is not UNSET and response.collect_services is not None:
        put("collect_services", "other", response.collect_services)
    if response.debug is not UNSET and response.debug is not None:
        put("debug", "other", response.debug)
    if response.client_version is not UNSET and response.client_version is not None:
        put("client_version", "other", response.client_version)

    peers = _Peers(netmap.peers)
    peers.apply(response, wall_s)
    if peers.touched:
        netmap = replace(netmap, peers=peers.now)
    return netmap, Change(
        **changed,
        upserted=frozenset(peers.upserted),
        patched=frozenset(peers.patched - peers.upserted),
        removed=tuple(peers.removed),
    )


def normalise(node: Node) -> Node:
    """A node with what the wire leaves to be understood filled in."""
    changes: dict[str, Any] = {}
    if node.allowed_ips is None:
        changes["allowed_ips"] = list(node.addresses or ())
    if not node.home_derp and node.legacy_derp.startswith(LEGACY_DERP_PREFIX):
        digits = node.legacy_derp.removeprefix(LEGACY_DERP_PREFIX)
        if digits.isascii() and digits.isdigit() and len(digits) < 10:
            changes["home_derp"] = int(digits)
    return replace(node, **changes) if changes else node


def difference(old: Netmap | None, new: Netmap) -> Change:
    """What to redo when one netmap takes the place of another without a message (a new stream, a netmap from disk)."""
    before = {} if old is None else old.peers
    return Change(
        self_node=True,
        derp_map=True,
        dns=True,
        filters=True,
        users=True,
        health=True,
        other=True,
        upserted=frozenset(key for key, node in new.peers.items() if before.get(key) != node),
        removed=tuple(node for key, node in before.items() if key not in new.peers),
    )


class _Peers:
    """The table of peers while one response is applied."""

    def __init__(self, old: dict[int, Node]) -> None:
        self.now = old
        self.touched = False
        self.upserted: set[int] = set()
        self.patched: set[int] = set()
        self.removed: list[Node] = []

    def apply(self, response: MapResponse, wall_s: float) -> None:
        if response.peers is not UNSET and response.peers:
            self._replace_all(response.peers)
            return
        if response.peers_removed is not UNSET:
            for key in response.peers_removed or ():
                self._remove(key)
        if response.peers_changed is not UNSET:
            for node in response.peers_changed or ():
                self._upsert(normalise(node))
        if response.peer_seen_change is not UNSET:
            for key, seen in (response.peer_seen_change or {}).items():
                self._patch(key, {"last_seen": format_time(wall_s) if seen else None})
        if response.online_change is not UNSET:
            for key, online in (response.online_change or {}).items():
                self._patch(key, {"online": online})
        if response.peers_changed_patch is not UNSET:
            for change in response.peers_changed_patch or ():
                self._patch(change.node_id, _members(change))

    def _own(self) -> dict[int, Node]:
        if not self.touched:
            self.now = dict(self.now)
            self.touched = True
        return self.now

    def _replace_all(self, nodes: Iterable[Node]) -> None:
        before = self.now
        self.now = {node.id: normalise(node) for node in nodes}
        self.touched = True
        for key, node in self.now.items():
            known = before.get(key)
            if known == node:
                self.now[key] = known
            else:
                self.upserted.add(key)
        self.removed += [node for key, node in before.items() if key not in self.now]

    def _remove(self, key: int) -> None:
        if key in self.now:
            self.removed.append(self._own().pop(key))
            self.upserted.discard(key)
            self.patched.discard(key)

    def _upsert(self, node: Node) -> None:
        if self.now.get(node.id) == node:
            return
        self._own()[node.id] = node
        self.upserted.add(node.id)

    def _patch(self, key: int, members: dict[str, Any]) -> None:
        known = self.now.get(key)
        if known is None or not members:
            return  # a patch of a peer we were never shown says nothing
        new = replace(known, **members)
        if new == known:
            return
        self._own()[key] = new
        if members.keys() <= {"endpoints", "home_derp", "online", "last_seen"}:
            self.patched.add(key)
        else:
            self.upserted.add(key)


def _members(change: PeerChange) -> dict[str, Any]:
    members: dict[str, Any] = {
        "home_derp": change.derp_region or None,
        "cap": change.cap or None,
        "cap_map": change.cap_map,
        "endpoints": change.endpoints,
        "key": change.key,
        "key_signature": change.key_signature,
        "disco_key": change.disco_key,
        "online": change.online,
        "last_seen": change.last_seen,
        "key_expiry": change.key_expiry,
    }
    return {name: value for name, value in members.items() if value is not None}


def _merge_derp_map(old: DERPMap, new: DERPMap) -> DERPMap:
    regions = old.regions if new.regions is None else {k: v for k, v in new.regions.items() if v is not None}
    params = old.home_params if new.home_params is None else new.home_params
    return replace(new, regions=regions, home_params=params)


def _merge_filters(old: dict[str, list[FilterRule]], response: MapResponse) -> dict[str, list[FilterRule]] | None:
    whole, named = response.packet_filter, response.packet_filters
    merged = old
    if whole is not UNSET and whole is not None:
        merged = {**merged, BASE_FILTER: whole}
    if named is not UNSET and named is not None:
        merged = _patch(merged, named)
    return None if merged is old else merged


def _patch(old: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """The wire's patch of a named map: `"*": null` clears all first, a null entry deletes its name."""
    new = {} if "*" in patch and patch["*"] is None else dict(old)
    for name, value in patch.items():
        if name == "*":
            continue
        if value is None:
            new.pop(name, None)
        else:
            new[name] = value
    return new
