"""A policy joined with a tailnet, kept current: what each node receives.

`CompiledPolicy` holds no clock and does no IO. A change of one node (`put`, `drop`) works out what that node touches
and says which nodes' views changed; each view is then built when it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from buri.policy import attributes, checks, filters, routes, ssh
from buri.policy.document import read
from buri.policy.members import Mask, Members, Placed
from buri.policy.model import Policy
from buri.policy.names import Names
from buri.policy.problems import Faults
from buri.policy.reach import Reach
from buri.policy.tailnet import Node, Tailnet, User
from buri.wire.hujson import Document
from buri.wire.tailcfg.filter import FilterRule
from buri.wire.tailcfg.node import CapMap


class PeerView(NamedTuple):
    """A peer as one node sees it; all prefixes are CIDRs, sorted. `cap_map`: what of its capabilities is shown."""

    node_id: int
    addresses: tuple[str, ...]
    allowed_ips: tuple[str, ...]
    primary_routes: tuple[str, ...]
    cap_map: CapMap


class SelfView(NamedTuple):
    """A node as it sees itself."""

    addresses: tuple[str, ...]
    allowed_ips: tuple[str, ...]
    primary_routes: tuple[str, ...]
    cap_map: CapMap


class CompiledPolicy:
    """See the module. Nodes are named by their ids; an unknown id raises KeyError.

    `slots` keeps nodes at the places that an earlier `CompiledPolicy` gave them (`members.slots()`), so that masks of
    both can be compared.
    """

    def __init__(self, policy: Policy, tailnet: Tailnet, slots: Mapping[int, int] | None = None) -> None:
        self.policy = policy
        self.members = Members(tailnet.users, policy.groups, slots)
        for node in tailnet.nodes:
            self._place(node)
        self.reach = Reach(policy, self.members)
        for rule in policy.ssh:
            self.reach.source(rule.srcs, rule.posture)  # known from now on, so that it follows the nodes
            if rule.recorders:
                self.reach.source(rule.recorders)
        self.routes = routes.RouteTable(self.members)

    def put(self, node: Node) -> set[int]:
        """Add a node, or replace the one of its id; the ids of the nodes whose views may have changed.

        Of the others only the order of filter rules may: a filter accepts alike in any order.
        """
        return self._ids(self.put_node(node))

    def drop(self, node_id: int) -> set[int]:
        """Forget a node; the ids of the nodes whose views may have changed."""
        return self._ids(self.drop_node(node_id))

    def put_node(self, node: Node) -> Mask:
        """`put`, with the answer as a mask."""
        old = self.members.get(node.id)
        if old is not None and old.node == node:
            return 0
        return self._follow(old, self._place(node))

    def drop_node(self, node_id: int) -> Mask:
        """`drop`, with the answer as a mask."""
        old = self._at(node_id)
        self.members.drop(node_id)
        return self._follow(old, None)

    def add_user(self, user: User) -> None:
        """Know one more person, who has no nodes yet."""
        self.members.add_user(user)

    def _follow(self, old: Placed | None, new: Placed | None) -> Mask:
        touched, sources = self.reach.follow(old, new)
        touched |= ssh.touched(self.reach, sources)
        sides = [side for side in (old, new) if side is not None]
        if any(side.subnets or side.exits for side in sides):
            for text in {text for side in sides for text in side.subnet_texts}:
                for carrier in self.routes.carriers.get(text, ()):
                    touched |= carrier.bit
            self.routes.follow(old, new)
        if new is not None:
            touched |= new.bit
        return touched & self.members.all

    def packet_filter(self, node_id: int) -> list[FilterRule]:
        return filters.packet_filter(self._at(node_id), self.reach)

    def ssh_rules(self, node_id: int) -> list[ssh.SshWire]:
        return ssh.ssh_rules(self._at(node_id), self.reach)

    def peer_ids(self, node_id: int) -> set[int]:
        """The nodes a node sees."""
        return self._ids(self.peer_mask(node_id))

    def peer_mask(self, node_id: int) -> Mask:
        """`peer_ids` as a mask."""
        return self.reach.peers(self._at(node_id))

    def usable_routes(self, node_id: int) -> dict[int, routes.PeerRoutes]:
        """The routes a node may use, by the id of the peer that carries them."""
        table = self.routes
        if not table.carriers and not self.members.exits:
            return {}
        return table.usable(self._at(node_id), self.reach)

    def peers(self, node_id: int) -> list[PeerView]:
        """The nodes a node sees, and how, in the order of their ids."""
        usable, ipv4 = self.usable_routes(node_id), self.uses_ipv4(node_id)
        return [
            self.peer_view(peer_id, usable.get(peer_id, routes.NO_ROUTES), ipv4=ipv4)
            for peer_id in sorted(self.peer_ids(node_id))
        ]

    def own_view(self, node_id: int) -> SelfView:
        placed = self._at(node_id)
        addresses = placed.prefixes
        return SelfView(
            addresses,
            (*addresses, *sorted((*placed.subnet_texts, *placed.exits))),
            tuple(sorted(self.routes.primaries(placed))),
            attributes.own_capabilities(placed, self.policy, self.members),
        )

    def ip_pools(self, node: Node) -> tuple[str, ...]:
        """The CIDRs that the policy wants a node's IPv4 address from, the first that fits; none: it is all the same."""
        return attributes.ip_pools(node, self.policy, self.members)

    def auto_approved(self, node: Node, route: str) -> bool:
        """Whether a route that a node advertises is approved by the policy alone."""
        return routes.auto_approved(node, route, self.policy.auto_approvers, self.members)

    def uses_ipv4(self, node_id: int) -> bool:
        """Whether the policy leaves a node its IPv4 address."""
        viewer = self._at(node_id)
        return not viewer.node.ipv4 or viewer.node.ipv4 in viewer.addresses

    def peer_view(self, peer_id: int, usable: routes.PeerRoutes = routes.NO_ROUTES, *, ipv4: bool = True) -> PeerView:
        """A node as somebody sees it who may use some of its routes, and has (or has no) IPv4 to talk from."""
        addresses = self._at(peer_id).prefixes
        if not ipv4:
            addresses = tuple(text for text in addresses if ":" in text)
        return PeerView(
            peer_id,
            addresses,
            (*addresses, *sorted((*usable.primary, *usable.exits))),
            usable.primary,
            {attributes.SUGGEST_EXIT_NODE: None} if usable.exits else {},
        )

    def _at(self, node_id: int) -> Placed:
        placed = self.members.get(node_id)
        if placed is None:
            raise KeyError(node_id)
        return placed

    def _ids(self, mask: Mask) -> set[int]:
        return set(self.members.ids(mask))

    def _place(self, node: Node) -> Placed:
        return self.members.put(node, ipv4=attributes.uses_ipv4(node, self.policy, self.members))


def check(data: bytes | str, tailnet: Tailnet) -> CompiledPolicy:
    """Read, validate and compile a policy and run its tests: what must pass before it is stored.

    Raises PolicyError with every fault (a failed test is one), SyntaxPlaceError when the text is not HuJSON.
    """
    document = Document.parse(data)
    policy = read(document, domains=tailnet.domains)
    compiled = CompiledPolicy(policy, tailnet)
    run_tests(document, compiled)
    return compiled


def run_tests(document: Document, compiled: CompiledPolicy) -> None:
    """Run a policy's own tests against the nodes it is compiled with; raises PolicyError with every failure."""
    policy, faults = compiled.policy, Faults(document)
    checks.run_tests(compiled.reach, Names(policy.groups, policy.tag_owners, policy.hosts), faults)
    faults.check()
