"""One change in the making: the next snapshot, the rows to write, and what to tell others, kept together.

A decision of the domain opens an `Edit` on the newest snapshot, puts and removes records, and hands it to the ledger.
"""

from __future__ import annotations

import msgspec

from buri.control.changes import (
    Change,
    DERPMapChanged,
    Fields,
    NodeAdded,
    NodeChanged,
    NodeRemoved,
    PolicyChanged,
    UserChanged,
)
from buri.control.credentials import Credential
from buri.control.snapshot import AuthKeyRecord, Counters, NodeRecord, PolicyRecord, Snapshot, UserRecord
from buri.wire.tailcfg.derpmap import DERPMap


class PutNode(msgspec.Struct, frozen=True):
    node: NodeRecord


class DeleteNode(msgspec.Struct, frozen=True):
    node_id: int


class PutUser(msgspec.Struct, frozen=True):
    user: UserRecord


class DeleteUser(msgspec.Struct, frozen=True):
    user_id: int


class PutAuthKey(msgspec.Struct, frozen=True):
    key: AuthKeyRecord


class DeleteAuthKey(msgspec.Struct, frozen=True):
    key_id: int


class PutCredential(msgspec.Struct, frozen=True):
    record: Credential


class DeleteCredential(msgspec.Struct, frozen=True):
    record: Credential


class PutPolicy(msgspec.Struct, frozen=True):
    policy: PolicyRecord
    oldest_kept: int


class PutCounters(msgspec.Struct, frozen=True):
    counters: Counters


Write = (
    PutNode
    | DeleteNode
    | PutUser
    | DeleteUser
    | PutAuthKey
    | DeleteAuthKey
    | PutCredential
    | DeleteCredential
    | PutPolicy
    | PutCounters
)

_PATCHED = (
    (Fields.ENDPOINTS, ("endpoints",)),
    (Fields.HOME_DERP, ("home_derp",)),
    (Fields.ONLINE, ("online",)),
    (Fields.DISCO, ("disco",)),
    (Fields.KEY_EXPIRY, ("expiry_s",)),
)
_WHOLE = ("key", "machine", "name", "user_id", "tags", "ipv4", "ipv6", "cap", "authorized")


class Edit:
    """Collects one atomic change on top of a snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.writes: list[Write] = []
        self.changes: list[Change] = []

    def add_node(self, node: NodeRecord) -> None:
        self.snapshot = self.snapshot.with_node(node)
        self.writes.append(PutNode(node))
        self.changes.append(NodeAdded(node.id))

    def put_node(self, node: NodeRecord, now_s: float, *, stored: bool = True) -> None:
        """Replace a node; what changed is found by comparing. `stored` False: only volatile members differ."""
        old = self.snapshot.nodes[node.id]
        if old == node:
            return
        self.snapshot = self.snapshot.with_node(node)
        if stored:
            self.writes.append(PutNode(node))
        fields = differing(old, node, now_s)
        if fields:
            self.changes.append(NodeChanged(node.id, fields))

    def remove_node(self, node_id: int) -> None:
        self.snapshot = self.snapshot.without_node(node_id)
        self.writes.append(DeleteNode(node_id))
        self.changes.append(NodeRemoved(node_id))

    def expire_by_time(self, node_id: int) -> None:
        """Tell that a node's key has just passed its time; nothing is written."""
        self.changes.append(NodeChanged(node_id, Fields.WHOLE | Fields.STANDING))

    def put_user(self, user: UserRecord) -> None:
        known = user.id in self.snapshot.users
        self.snapshot = self.snapshot.with_user(user)
        self.writes.append(PutUser(user))
        if known:
            self.changes.append(UserChanged(user.id))

    def remove_user(self, user_id: int) -> None:
        self.snapshot = self.snapshot.without_user(user_id)
        self.writes.append(DeleteUser(user_id))

    def put_auth_key(self, key: AuthKeyRecord) -> None:
        self.snapshot = self.snapshot.with_auth_key(key)
        self.writes.append(PutAuthKey(key))

    def remove_auth_key(self, key_id: int) -> None:
        self.snapshot = self.snapshot.without_auth_key(key_id)
        self.writes.append(DeleteAuthKey(key_id))

    def put_credential(self, record: Credential) -> None:
        self.snapshot = self.snapshot.with_credentials(self.snapshot.credentials.having(record))
        self.writes.append(PutCredential(record))

    def remove_credential(self, record: Credential) -> None:
        self.snapshot = self.snapshot.with_credentials(self.snapshot.credentials.lacking(record))
        self.writes.append(DeleteCredential(record))

    def put_policy(self, policy: PolicyRecord) -> None:
        """Put another policy in force; it must have passed its checks."""
        self.snapshot = self.snapshot.with_policy(policy)
        self.writes.append(PutPolicy(policy, self.snapshot.policies[0].id))
        self.changes.append(PolicyChanged())

    def put_counters(self, counters: Counters) -> None:
        self.snapshot = self.snapshot.with_counters(counters)
        self.writes.append(PutCounters(counters))

    def put_derp_map(self, derp_map: DERPMap) -> None:
        """Another map of relays; it comes from configuration at each start, so it is not stored."""
        self.snapshot = self.snapshot.with_derp_map(derp_map)
        self.changes.append(DERPMapChanged())


def differing(old: NodeRecord, new: NodeRecord, now_s: float) -> int:
    """What peers (and the node itself) must be told when `old` becomes `new`."""
    fields = Fields.NONE
    for flag, names in _PATCHED:
        if any(getattr(old, name) != getattr(new, name) for name in names):
            fields |= flag
    if any(getattr(old, name) != getattr(new, name) for name in _WHOLE):
        fields |= Fields.WHOLE
    if hostinfo_differs(old, new, PUBLIC_HOSTINFO):
        fields |= Fields.WHOLE
    if hostinfo_differs(old, new, ROUTING_HOSTINFO):
        fields |= Fields.ROUTING
    if (old.user_id, bool(old.tags)) != (new.user_id, bool(new.tags)):
        fields |= Fields.OWNER
    if (old.expired(now_s), old.authorized) != (new.expired(now_s), new.authorized):
        fields |= Fields.STANDING | Fields.WHOLE
    # "Only non-zero members of a patch apply": what became empty needs the whole node.
    emptied = (
        (Fields.ENDPOINTS, new.endpoints),
        (Fields.HOME_DERP, new.home_derp),
        (Fields.KEY_EXPIRY, new.expiry_s),
    )
    if any(fields & flag and not value for flag, value in emptied):
        fields |= Fields.WHOLE
    return fields


# What of a node's Hostinfo its peers are shown; the rest (network measurements, log ids) is the server's alone.
PUBLIC_HOSTINFO = (
    "os",
    "hostname",
    "shields_up",
    "services",
    "ssh_host_keys",
    "app_connector",
    "wire_ingress",
    "location",
    "app",
)
# What of it a policy may ask: advertised routes, and what device postures look at.
ROUTING_HOSTINFO = ("routable_ips", "os", "os_version", "ipn_version")


def hostinfo_differs(old: NodeRecord, new: NodeRecord, names: tuple[str, ...]) -> bool:
    if old.hostinfo is new.hostinfo:
        return False
    return any(getattr(old.hostinfo, name) != getattr(new.hostinfo, name) for name in names)
