"""Who may join and as which node: every rule of registration, without IO (wire reference 1b).

A node is found again by its machine key: the same machine and owner keep id, addresses and name, whatever node key they
come with; a machine that logs in as another person becomes another node, and its old one stays. Tagged and
personal nodes turn into each other, keeping the node.
"""

from __future__ import annotations

import msgspec

from buri.control.domain import addresses, authkeys, names, tags
from buri.control.edit import Edit
from buri.control.snapshot import AuthKeyRecord, NodeRecord, Snapshot, UserRecord
from buri.core.keys import DiscoPublic, MachinePublic, NodePublic
from buri.policy.model import Policy
from buri.wire.tailcfg.node import Hostinfo

DAY_S = 86400.0
STABLE_ID_ENTROPY = 8
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


class Applicant(msgspec.Struct, frozen=True):
    """What a machine says of itself when it registers; `old_key`: the key that it had before, zero for none."""

    machine: MachinePublic
    key: NodePublic
    hostinfo: Hostinfo
    cap: int
    ephemeral: bool
    old_key: NodePublic = NodePublic.zero()

    @property
    def requested_tags(self) -> tuple[str, ...]:
        return tuple(self.hostinfo.request_tags or ())


class Owner(msgspec.Struct, frozen=True):
    """To whom a joining node will belong: a user, or tags."""

    user_id: int | None
    tags: tuple[str, ...] = ()
    ephemeral: bool = False
    auth_key_id: int | None = None


class Refusal(msgspec.Struct, frozen=True):
    """Why not, as the user reads it."""

    text: str


def owner_by_auth_key(
    snapshot: Snapshot, applicant: Applicant, key: str, policy: Policy, now_s: float
) -> Owner | Refusal:
    """Check a pre-auth key and the tags asked for."""
    record = authkeys.find(snapshot, key)
    if record is None:
        return Refusal(authkeys.UNKNOWN)
    if objection := authkeys.objection(record, now_s):
        return Refusal(objection)
    if not record.tags and record.user_id is not None:
        owner = owner_by_user(snapshot.users[record.user_id], applicant, policy)
        if isinstance(owner, Refusal):
            return owner
        return msgspec.structs.replace(owner, ephemeral=record.ephemeral, auth_key_id=record.id)
    wrong = [tag for tag in applicant.requested_tags if tag not in record.tags]
    if wrong:
        return _not_permitted(wrong, f"this key grants {', '.join(record.tags)}")
    return Owner(user_id=None, tags=record.tags, ephemeral=record.ephemeral, auth_key_id=record.id)


def owner_by_user(user: UserRecord, applicant: Applicant, policy: Policy) -> Owner | Refusal:
    """A person lets a node in: as theirs, or as one of the tags it asks for, when the policy says that they own these."""
    wrong = [tag for tag in applicant.requested_tags if not tags.owns(policy, user, tag)]
    if wrong:
        return _not_permitted(wrong, f"the policy does not name {user.name} as their owner")
    requested = tuple(dict.fromkeys(applicant.requested_tags))
    return Owner(user_id=None if requested else user.id, tags=requested)


def nobodys_tags(applicant: Applicant, policy: Policy) -> Refusal | None:
    """Whether it asks for tags that nobody could give it, so that no person need be asked."""
    wrong = [tag for tag in applicant.requested_tags if tag not in policy.tag_owners]
    return _not_permitted(wrong, "the policy's tagOwners know no such tags") if wrong else None


def _not_permitted(wrong: list[str], why: str) -> Refusal:
    return Refusal(
        f"requested tags {', '.join(wrong)} are not permitted: {why}. "
        "Use a key made with these tags (buri admin preauthkeys create --tags …), or leave out --advertise-tags."
    )


def renewable(snapshot: Snapshot, machine: MachinePublic, key: NodePublic, now_s: float) -> NodeRecord | None:
    """The node that already has this very key and may go on with it: nothing is asked again."""
    node = snapshot.node_of_key(key)
    if node is None or node.machine != machine or node.expired(now_s):
        return None
    return node


Joined = tuple[Edit, NodeRecord]


def refresh(snapshot: Snapshot, node: NodeRecord, applicant: Applicant, now_s: float) -> Edit:
    """A node that registers again with the key it has: its host may have changed."""
    changed = msgspec.structs.replace(
        node, hostinfo=merged_hostinfo(node.hostinfo, applicant.hostinfo), cap=applicant.cap or node.cap
    )
    edit = Edit(snapshot)
    edit.put_node(renamed_by_host(snapshot, changed), now_s)
    return edit


def join(
    snapshot: Snapshot, applicant: Applicant, owner: Owner, *, now_s: float, key_expiry_s: float, entropy: bytes
) -> Joined | Refusal:
    """Let a machine in: as the node it was, or as a new one. `key_expiry_s` 0 = keys of people do not expire."""
    holder = snapshot.node_of_key(applicant.key)
    if holder is not None and holder.machine != applicant.machine:
        return Refusal("this node key belongs to another machine. Log out there, or log in again here for a new key.")
    edit = Edit(snapshot)
    expiry_s = 0.0 if owner.tags or not key_expiry_s else now_s + key_expiry_s
    known = holder or _same_node(snapshot, applicant.machine, owner)
    ephemeral = owner.ephemeral or applicant.ephemeral
    if owner.auth_key_id is not None:
        record: AuthKeyRecord = snapshot.auth_keys[owner.auth_key_id]
        if not record.used_s:
            edit.put_auth_key(msgspec.structs.replace(record, used_s=now_s))
    if known is not None:
        node = msgspec.structs.replace(
            known,
            key=applicant.key,
            user_id=owner.user_id,
            tags=owner.tags,
            hostinfo=merged_hostinfo(known.hostinfo, applicant.hostinfo),
            cap=applicant.cap,
            ephemeral=ephemeral,
            auth_key_id=owner.auth_key_id,
            expiry_s=expiry_s,
        )
        node = renamed_by_host(edit.snapshot, node)
        edit.put_node(node, now_s)
        return edit, node
    counters = edit.snapshot.counters
    in_use = {record.ipv4 for record in snapshot.nodes.values()} if counters.address >= addresses.CAPACITY else set()
    ipv4, ipv6, next_address = addresses.allocate(counters.address, in_use.__contains__)
    node = NodeRecord(
        id=counters.node,
        stable_id=stable_id(entropy),
        machine=applicant.machine,
        key=applicant.key,
        disco=DiscoPublic.zero(),
        name=names.unique(names.sanitise(applicant.hostinfo.hostname), snapshot.by_name),
        name_pinned=False,
        user_id=owner.user_id,
        tags=owner.tags,
        ipv4=ipv4,
        ipv6=ipv6,
        hostinfo=applicant.hostinfo,
        cap=applicant.cap,
        endpoints=(),
        home_derp=0,
        ephemeral=ephemeral,
        authorized=True,
        auth_key_id=owner.auth_key_id,
        created_s=now_s,
        expiry_s=expiry_s,
        last_seen_s=now_s,
    )
    edit.put_counters(msgspec.structs.replace(counters, node=counters.node + 1, address=next_address))
    edit.add_node(node)
    return edit, node


def readmit(snapshot: Snapshot, applicant: Applicant, node: NodeRecord, now_s: float) -> Edit:
    """Give a node whose end was pushed away the new key that it asks for meanwhile; all else stays as it is."""
    edit = Edit(snapshot)
    edit.put_node(msgspec.structs.replace(node, key=applicant.key, cap=applicant.cap or node.cap), now_s)
    return edit


def _same_node(snapshot: Snapshot, machine: MachinePublic, owner: Owner) -> NodeRecord | None:
    """The node of this machine that the owner would call the same: their own, else one that is or becomes tagged."""
    nodes = snapshot.nodes_of_machine(machine)
    for node in nodes:
        if (node.user_id, bool(node.tags)) == (owner.user_id, bool(owner.tags)):
            return node
    return next((node for node in nodes if node.tags or owner.tags), None)


def merged_hostinfo(old: Hostinfo, new: Hostinfo) -> Hostinfo:
    """What a register says of the host; its network report comes by map updates, so the last one stays."""
    if new.net_info is None and old.net_info is not None:
        return msgspec.structs.replace(new, net_info=old.net_info)
    return new


def renamed_by_host(snapshot: Snapshot, node: NodeRecord) -> NodeRecord:
    """Follow a changed host name, unless an administrator chose the name or it still fits."""
    base = names.sanitise(node.hostinfo.hostname)
    if node.name_pinned or names.belongs_to(node.name, base):
        return node
    others = {name for name, node_id in snapshot.by_name.items() if node_id != node.id}
    return msgspec.structs.replace(node, name=names.unique(base, others))


def stable_id(entropy: bytes) -> str:
    """An opaque id that outlives every key, in the shape Tailscale's tools expect to print."""
    number, digits = int.from_bytes(entropy[:STABLE_ID_ENTROPY], "big"), ""
    while len(digits) < 11:
        number, digit = divmod(number, 58)
        digits += _BASE58[digit]
    return f"n{digits}CNTRL"
