"""Who sees whom and what each node lets in, kept current beside the snapshot. The one place that decides it.

The tailnet's policy, compiled, is the source of every answer. Two things stand above it: a node whose own standing is
bad (key expired, not yet authorized) sees nobody, and a node that is not authorized is seen by nobody. An expired peer
stays visible, marked.

What a node is shown is a `Sight`, built when it is asked for and kept until a change touches it. So whoever kept the
`Sight` that it was told last sees at once (by identity) that nothing changed, and else finds what did.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from buri.control.changes import Change, Fields, NodeAdded, NodeChanged, NodeRemoved, PolicyChanged
from buri.control.domain import tailnets
from buri.control.snapshot import NodeRecord, Snapshot
from buri.core.errors import ConfigError
from buri.policy.compiler import CompiledPolicy, PeerView, SelfView
from buri.policy.members import Mask
from buri.policy.model import Policy
from buri.policy.reach import Edge
from buri.policy.routes import NO_ROUTES, PeerRoutes
from buri.policy.selectors import Kind
from buri.wire.tailcfg.derpmap import DERPMap
from buri.wire.tailcfg.filter import FilterRule

EVERYBODY: Mask = -1
"""The peers of a node that sees all there are: a mask without end, right whoever comes and goes."""
SSH_CAPABILITY = "https://tailscale.com/cap/ssh"
_log = logging.getLogger("buri.server")
_POLICY_ASKS = Fields.WHOLE | Fields.OWNER | Fields.ONLINE | Fields.STANDING | Fields.ROUTING


class Sight(NamedTuple):
    """What one node is shown, besides the peers' own facts. Do not change what it holds.

    `peers` is a mask (`EVERYBODY`: all); `routes` the routes it may use, by peer; `ipv4` whether it has IPv4 to talk
    from; `filters` its packet filter's rules in JSON, named by their content; `ssh` its SSHPolicy in JSON.
    """

    peers: Mask
    routes: dict[int, PeerRoutes]
    ipv4: bool
    filters: dict[str, bytes]
    ssh: bytes
    own: SelfView


class Followed(NamedTuple):
    """What some changes did. `touched`: whose sight may have changed; `came` and `went`: who took or left which place.

    `relays`: the policy says something else of them. `reshaped`: nodes that look different to everybody who sees them,
    though their records are as they were.
    """

    touched: Mask
    came: dict[int, Mask]
    went: dict[int, Mask]
    reshaped: tuple[int, ...] = ()
    relays: bool = False


def has_sight(viewer: NodeRecord, now_s: float) -> bool:
    """Whether a node may see anybody at all now."""
    return viewer.authorized and not viewer.expired(now_s)


class Visibility:
    """See the module. A stored policy that this version does not understand lets nothing pass until another is set."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._users = snapshot.users
        self._plain_filters: dict[str, bytes] | None = None  # everybody's, while the policy is plain
        try:
            compiled = tailnets.compile_current(snapshot)
        except ConfigError as error:
            _log.error(
                "policy %d is not understood, so nothing passes until another is set: %s", snapshot.policy.id, error
            )
            compiled = tailnets.join(Policy(rules=()), snapshot)
        self._adopt(compiled)

    def follow(self, snapshot: Snapshot, changes: Iterable[Change]) -> Followed:
        """Take in what a commit changed."""
        before = self.compiled
        if any(isinstance(change, PolicyChanged) for change in changes):
            return self._recompiled(before, tailnets.compile_current(snapshot, self._slots()), snapshot)
        if not self._follow_users(snapshot):
            return self._recompiled(before, tailnets.join(before.policy, snapshot, self._slots()), snapshot)
        touched: Mask = 0
        came: dict[int, Mask] = {}
        went: dict[int, Mask] = {}
        for change in changes:
            if not isinstance(change, NodeAdded | NodeRemoved | NodeChanged):
                continue
            if isinstance(change, NodeChanged) and not change.fields & _POLICY_ASKS:
                continue
            bit = self.bit(change.node_id)
            touched |= self._follow_node(snapshot, change.node_id)
            now = self.bit(change.node_id)
            if now and not bit:
                came[change.node_id] = now
            elif bit and not now:
                went[change.node_id] = bit
        for placed in self.compiled.members.each(touched & self.compiled.members.all):
            self._sights.pop(placed.node.id, None)
        for node_id in went:
            self._sights.pop(node_id, None)
        return Followed(touched, came, went)

    def _follow_node(self, snapshot: Snapshot, node_id: int) -> Mask:
        compiled = self.compiled
        record, old = snapshot.nodes.get(node_id), compiled.members.get(node_id)
        if record is None or not record.authorized:
            touched = 0 if old is None else compiled.drop_node(node_id)
            new = None
        else:
            touched = tailnets.put(compiled, record)
            new = compiled.members.get(node_id)
        if self._plain and not any(side is not None and side.node.approved for side in (old, new)):
            return touched & (new.bit if new is not None else 0)
        self._plain_filters = None
        return touched

    def _follow_users(self, snapshot: Snapshot) -> bool:
        """Take in new people; False when somebody known has another name or role, or is gone: then compile anew."""
        users = snapshot.users
        if users is self._users:
            return True
        old, self._users = self._users, users
        for user_id, record in users.items():
            known = old.get(user_id)
            if known is None:
                self.compiled.add_user(tailnets.user_of(record))
            elif tailnets.user_of(known) != tailnets.user_of(record):
                return False
        return all(user_id in users for user_id in old)

    def _slots(self) -> dict[int, int]:
        return self.compiled.members.slots()

    def _recompiled(self, before: CompiledPolicy, after: CompiledPolicy, snapshot: Snapshot) -> Followed:
        self._users = snapshot.users
        self._adopt(after)
        olds = {placed.node.id: placed for placed in before.members.each(before.members.all)}
        news = {placed.node.id: placed for placed in after.members.each(after.members.all)}
        return Followed(
            EVERYBODY,
            {node_id: placed.bit for node_id, placed in news.items() if node_id not in olds},
            {node_id: placed.bit for node_id, placed in olds.items() if node_id not in news},
            tuple(i for i, placed in news.items() if i in olds and olds[i].addresses != placed.addresses),
            before.policy.derp_map != after.policy.derp_map,
        )

    def _adopt(self, compiled: CompiledPolicy) -> None:
        self.compiled = compiled
        self._sights: dict[int, Sight] = {}
        policy, edges = compiled.policy, compiled.reach.edges
        self._open = any(map(_opens_all, edges))
        # Then whoever comes, goes or changes changes nobody else's sight, unless it carries routes.
        self._plain = self._open and len(edges) == 1 and not policy.ssh and not edges[0].rule.app
        self._plain_filters = None

    def bit(self, node_id: int) -> Mask:
        """A node's place in masks; 0 for one that takes no part."""
        placed = self.compiled.members.get(node_id)
        return 0 if placed is None else placed.bit

    def all(self) -> Mask:
        """Every node that takes part."""
        return self.compiled.members.all

    def ids(self, mask: Mask) -> list[int]:
        """The nodes of a mask, in the order of their ids."""
        return sorted(placed.node.id for placed in self.compiled.members.each(mask & self.compiled.members.all))

    def of_user(self, user_id: int) -> Mask:
        """A person's nodes."""
        return self.compiled.members.of_user(user_id)

    def sight(self, node_id: int) -> Sight:
        """What a node is shown; nothing when it takes no part."""
        sight = self._sights.get(node_id)
        if sight is None:
            if not self.bit(node_id):
                return _BLIND
            sight = self._sights[node_id] = self._look(node_id)
        return sight

    def derp_map(self, snapshot: Snapshot) -> DERPMap:
        """The relays that nodes are told of."""
        return tailnets.derp_map(snapshot, self.compiled.policy)

    def peer_view(self, peer_id: int, usable: PeerRoutes = NO_ROUTES, *, ipv4: bool = True) -> PeerView:
        """A peer's addresses and routes as somebody sees them."""
        return self.compiled.peer_view(peer_id, usable, ipv4=ipv4)

    def _look(self, node_id: int) -> Sight:
        compiled = self.compiled
        routes = compiled.usable_routes(node_id)
        routes.pop(node_id, None)
        own = compiled.own_view(node_id)
        ssh = compiled.ssh_rules(node_id)
        if ssh:
            own = own._replace(cap_map={**own.cap_map, SSH_CAPABILITY: None})
        return Sight(
            peers=EVERYBODY if self._open else compiled.peer_mask(node_id),
            routes=routes,
            ipv4=compiled.uses_ipv4(node_id),
            filters=self._filters(node_id),
            ssh=msgspec.json.encode({"rules": ssh}),
            own=own,
        )

    def _filters(self, node_id: int) -> dict[str, bytes]:
        if not self._plain:
            return named(self.compiled.packet_filter(node_id))
        if self._plain_filters is None:
            self._plain_filters = named(self.compiled.packet_filter(node_id))
        return self._plain_filters


_BLIND = Sight(0, {}, True, {}, b'{"rules":[]}', SelfView((), (), (), {}))


def named(rules: Sequence[FilterRule]) -> dict[str, bytes]:
    """Filter rules in JSON, each under a name made of its content: a rule that stays need not be said again."""
    found: dict[str, bytes] = {}
    for rule in rules:
        text = msgspec.json.encode(rule)
        name = blake2b(text, digest_size=6).hexdigest()
        found[name] = text
    return found


def _opens_all(edge: Edge) -> bool:
    """Whether an edge lets everybody see everybody."""
    target = any(target.selector.kind is Kind.EVERYONE for target in edge.targets)
    return edge.source.everyone and target and not edge.rule.via and not edge.source.posture
