"""The control server's truth in memory: immutable records in an immutable snapshot, swapped whole.

A `Snapshot` is never changed; `with_node` and its sisters return the next one. They copy dictionaries of references
(a few microseconds for a thousand nodes), never records. What is volatile (online) lives in the record too, so that one
value answers every question; the store leaves it out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import msgspec

from buri.control.credentials import Credentials
from buri.core.addresses import AddrPort
from buri.core.keys import DiscoPublic, MachinePublic, NodePublic
from buri.policy.tailnet import Role
from buri.wire.tailcfg.derpmap import DERPMap
from buri.wire.tailcfg.node import Hostinfo

TAGGED_USER_ID = 1 << 40  # owner of every tagged node on the wire; far above the users' counter
TAGGED_USER_NAME = "tagged-devices"


class UserRecord(msgspec.Struct, frozen=True):
    """A person. `name` is unique in the tailnet; times are seconds since 1970. The policy's autogroups ask for `role`.

    `email` and `picture` (a URL) are what a provider said last, for showing; nobody is found by them.
    """

    id: int
    name: str
    display_name: str
    created_s: float
    role: Role = "member"
    email: str = ""
    picture: str = ""

    @property
    def login(self) -> str:
        """What a policy calls them: `alice@example.com`, or `alice@` for a name without a domain."""
        return self.name if "@" in self.name else f"{self.name}@"


class PolicyRecord(msgspec.Struct, frozen=True):
    """One version of the policy's text. `author` says who or what put it there ("file:PATH" for a file)."""

    id: int
    text: str
    author: str
    created_s: float

    @property
    def etag(self) -> str:
        """The text's fingerprint, for edits that must not undo one another: SHA-256 in hex."""
        return hashlib.sha256(self.text.encode()).hexdigest()


class AuthKeyRecord(msgspec.Struct, frozen=True):
    """A pre-auth key without its secret: `prefix` is public, `digest` is SHA-256 of the whole key.

    `expires_s` 0 = never. `user_id` None: a key for tagged nodes that no user owns.
    """

    id: int
    prefix: str
    digest: bytes
    user_id: int | None
    tags: tuple[str, ...]
    reusable: bool
    ephemeral: bool
    created_s: float
    expires_s: float
    used_s: float = 0.0
    revoked_s: float = 0.0


class NodeRecord(msgspec.Struct, frozen=True):
    """A node as the server knows it. Exactly one of `user_id` and `tags` says who owns it.

    `hostinfo` is what the node said, treated as frozen. `expiry_s` 0 = never. `name` is the DNS label, unique in the
    tailnet; `name_pinned`: an administrator chose it. `online` is volatile: a stream is open (or was, moments ago).
    """

    id: int
    stable_id: str
    machine: MachinePublic
    key: NodePublic
    disco: DiscoPublic
    name: str
    name_pinned: bool
    user_id: int | None
    tags: tuple[str, ...]
    ipv4: str
    ipv6: str
    hostinfo: Hostinfo
    cap: int
    endpoints: tuple[AddrPort, ...]
    home_derp: int
    ephemeral: bool
    authorized: bool
    auth_key_id: int | None
    created_s: float
    expiry_s: float
    last_seen_s: float
    online: bool = False

    def expired(self, now_s: float) -> bool:
        """Whether its key is past its time."""
        return self.expiry_s != 0 and self.expiry_s <= now_s

    @property
    def addresses(self) -> tuple[str, str]:
        return (f"{self.ipv4}/32", f"{self.ipv6}/128")


class Counters(msgspec.Struct, frozen=True):
    """The next number of each kind. They only grow: no id and no address is ever given twice."""

    node: int = 1
    user: int = 1
    auth_key: int = 1
    address: int = 0
    policy: int = 1


KEPT_POLICIES = 20
DEFAULT_POLICY = PolicyRecord(
    id=0,
    text="""// The policy of this tailnet: who may reach what. Nobody has set one yet, so every node reaches every other.
{
	"acls": [
		{"action": "accept", "src": ["*"], "dst": ["*:*"]},
	],
}
""",
    author="",
    created_s=0.0,
)


class Snapshot(msgspec.Struct, frozen=True):
    """One tailnet at one moment. `policies`: the newest last; it alone is in force."""

    tailnet_id: int
    base_domain: str
    nodes: Mapping[int, NodeRecord]
    users: Mapping[int, UserRecord]
    auth_keys: Mapping[int, AuthKeyRecord]
    counters: Counters
    derp_map: DERPMap
    policies: tuple[PolicyRecord, ...]
    by_key: Mapping[NodePublic, int]
    by_machine: Mapping[MachinePublic, tuple[int, ...]]
    by_name: Mapping[str, int]
    by_auth_prefix: Mapping[str, int]
    credentials: Credentials = Credentials()

    @classmethod
    def build(
        cls,
        *,
        tailnet_id: int,
        base_domain: str,
        nodes: list[NodeRecord],
        users: list[UserRecord],
        auth_keys: list[AuthKeyRecord],
        counters: Counters,
        derp_map: DERPMap,
        policies: Sequence[PolicyRecord] = (),
        credentials: Credentials | None = None,
    ) -> Snapshot:
        """Index what the store holds."""
        by_machine: dict[MachinePublic, tuple[int, ...]] = {}
        for node in nodes:
            by_machine[node.machine] = (*by_machine.get(node.machine, ()), node.id)
        return cls(
            tailnet_id=tailnet_id,
            base_domain=base_domain,
            nodes={node.id: node for node in nodes},
            users={user.id: user for user in users},
            auth_keys={key.id: key for key in auth_keys},
            counters=counters,
            derp_map=derp_map,
            policies=tuple(policies) or (DEFAULT_POLICY,),
            by_key={node.key: node.id for node in nodes},
            by_machine=by_machine,
            by_name={node.name: node.id for node in nodes},
            by_auth_prefix={key.prefix: key.id for key in auth_keys},
            credentials=credentials or Credentials(),
        )

    @property
    def policy(self) -> PolicyRecord:
        """The policy in force."""
        return self.policies[-1]

    def node_of_key(self, key: NodePublic) -> NodeRecord | None:
        node_id = self.by_key.get(key)
        return None if node_id is None else self.nodes[node_id]

    def nodes_of_machine(self, machine: MachinePublic) -> list[NodeRecord]:
        return [self.nodes[node_id] for node_id in self.by_machine.get(machine, ())]

    def user_named(self, name: str) -> UserRecord | None:
        return next((user for user in self.users.values() if user.name == name), None)

    def with_node(self, node: NodeRecord) -> Snapshot:
        """Add or replace a node, keeping every index right."""
        old = self.nodes.get(node.id)
        nodes = {**self.nodes, node.id: node}
        if old is not None and (old.key, old.machine, old.name) == (node.key, node.machine, node.name):
            return msgspec.structs.replace(self, nodes=nodes)
        by_key, by_name, by_machine = dict(self.by_key), dict(self.by_name), dict(self.by_machine)
        if old is not None:
            by_key.pop(old.key, None)
            by_name.pop(old.name, None)
            by_machine[old.machine] = tuple(i for i in by_machine[old.machine] if i != node.id)
        by_key[node.key] = node.id
        by_name[node.name] = node.id
        by_machine[node.machine] = (*by_machine.get(node.machine, ()), node.id)
        return msgspec.structs.replace(self, nodes=nodes, by_key=by_key, by_name=by_name, by_machine=by_machine)

    def without_node(self, node_id: int) -> Snapshot:
        old = self.nodes[node_id]
        nodes, by_key, by_name = dict(self.nodes), dict(self.by_key), dict(self.by_name)
        by_machine = dict(self.by_machine)
        del nodes[node_id], by_key[old.key], by_name[old.name]
        left = tuple(i for i in by_machine.pop(old.machine) if i != node_id)
        if left:
            by_machine[old.machine] = left
        return msgspec.structs.replace(self, nodes=nodes, by_key=by_key, by_name=by_name, by_machine=by_machine)

    def with_user(self, user: UserRecord) -> Snapshot:
        return msgspec.structs.replace(self, users={**self.users, user.id: user})

    def without_user(self, user_id: int) -> Snapshot:
        return msgspec.structs.replace(self, users={i: user for i, user in self.users.items() if i != user_id})

    def with_credentials(self, credentials: Credentials) -> Snapshot:
        return msgspec.structs.replace(self, credentials=credentials)

    def with_auth_key(self, key: AuthKeyRecord) -> Snapshot:
        by_prefix = {**self.by_auth_prefix, key.prefix: key.id}
        return msgspec.structs.replace(self, auth_keys={**self.auth_keys, key.id: key}, by_auth_prefix=by_prefix)

    def without_auth_key(self, key_id: int) -> Snapshot:
        keys, by_prefix = dict(self.auth_keys), dict(self.by_auth_prefix)
        del by_prefix[keys.pop(key_id).prefix]
        return msgspec.structs.replace(self, auth_keys=keys, by_auth_prefix=by_prefix)

    def with_policy(self, policy: PolicyRecord) -> Snapshot:
        """Put a policy in force. Those before stay known, KEPT_POLICIES of them."""
        kept = [record for record in self.policies if record.id][1 - KEPT_POLICIES :]
        return msgspec.structs.replace(self, policies=(*kept, policy))

    def with_counters(self, counters: Counters) -> Snapshot:
        return msgspec.structs.replace(self, counters=counters)

    def with_derp_map(self, derp_map: DERPMap) -> Snapshot:
        return msgspec.structs.replace(self, derp_map=derp_map)
