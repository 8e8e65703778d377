"""Users and their pre-auth keys: an administrator's decisions, without IO."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import get_args

import msgspec

from buri.control.domain import authkeys
from buri.control.edit import Edit
from buri.control.snapshot import AuthKeyRecord, NodeRecord, Snapshot, UserRecord
from buri.core.errors import ConfigError, StateError
from buri.policy.tailnet import Role

_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*(@[A-Za-z0-9.-]+)?")
_TAG = re.compile(r"tag:[A-Za-z][A-Za-z0-9-]*")
MAX_USER_NAME = 128


def create_user(
    snapshot: Snapshot, name: str, display_name: str, now_s: float, role: Role | None = None
) -> tuple[Edit, UserRecord]:
    """Without a `role`, the first user becomes owner. Raises ConfigError for an unfit name, StateError for a taken one."""
    check_user_name(snapshot, name)
    edit = Edit(snapshot)
    user = UserRecord(
        id=snapshot.counters.user,
        name=name,
        display_name=display_name or name,
        created_s=now_s,
        role=role or ("member" if snapshot.users else "owner"),
    )
    edit.put_counters(msgspec.structs.replace(snapshot.counters, user=user.id + 1))
    edit.put_user(user)
    return edit, user


def rename_user(snapshot: Snapshot, user: UserRecord, name: str) -> tuple[Edit, UserRecord]:
    if name != user.name:
        check_user_name(snapshot, name)
    display_name = name if user.display_name == user.name else user.display_name
    renamed = msgspec.structs.replace(user, name=name, display_name=display_name)
    edit = Edit(snapshot)
    edit.put_user(renamed)
    return edit, renamed


def grant_role(snapshot: Snapshot, user: UserRecord, role: str) -> tuple[Edit, UserRecord]:
    """Raises ConfigError for a role that there is not, StateError when nobody would own the tailnet any more."""
    try:
        granted = msgspec.convert(role, Role)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{role!r} is no role.", remedy=f"Roles are {', '.join(get_args(Role))}.") from error
    owners = [other for other in snapshot.users.values() if other.role == "owner" and other.id != user.id]
    if user.role == "owner" and granted != "owner" and not owners:
        raise StateError(f"{user.name} is the only owner.", remedy="Make somebody else owner first.")
    changed = msgspec.structs.replace(user, role=granted)
    edit = Edit(snapshot)
    edit.put_user(changed)
    return edit, changed


def tagged(node: NodeRecord, tags: Sequence[str]) -> NodeRecord:
    """A node that belongs to tags. Raises ConfigError."""
    if not tags:
        raise ConfigError(
            f"{node.name} must belong to somebody.", remedy="Name a tag; to give it to a person, let them log in on it."
        )
    _check_tags(tags)
    return msgspec.structs.replace(node, tags=tuple(dict.fromkeys(tags)), user_id=None, expiry_s=0.0)


def delete_user(snapshot: Snapshot, user: UserRecord) -> Edit:
    """Remove a user without nodes, and the keys that would make nodes for them. Raises StateError."""
    count = sum(node.user_id == user.id for node in snapshot.nodes.values())
    if count:
        raise StateError(
            f"User {user.name!r} still has {count} node{'s' if count > 1 else ''}.",
            remedy="Delete them first (buri admin nodes delete ID).",
        )
    others = [other for other in snapshot.users.values() if other.id != user.id]
    if others and user.role == "owner" and not any(other.role == "owner" for other in others):
        raise StateError(f"{user.name} is the only owner.", remedy="Make somebody else owner first.")
    edit = Edit(snapshot)
    for key in snapshot.auth_keys.values():
        if key.user_id == user.id:
            edit.remove_auth_key(key.id)
    for credential in snapshot.credentials.of_user(user.id):
        edit.remove_credential(credential)
    edit.remove_user(user.id)
    return edit


def find_user(snapshot: Snapshot, name_or_id: str) -> UserRecord:
    """By name, else by number. Raises StateError."""
    user = snapshot.user_named(name_or_id)
    if user is None and name_or_id.isdecimal():
        user = snapshot.users.get(int(name_or_id))
    if user is None:
        raise StateError(f"There is no user {name_or_id!r}.", remedy="See: buri admin users list")
    return user


def find_node(snapshot: Snapshot, name_or_id: str) -> NodeRecord:
    """By number, name, fully qualified name, address or stable id. Raises StateError."""
    text = name_or_id.strip().removesuffix(".").removesuffix(f".{snapshot.base_domain}")
    node_id = snapshot.by_name.get(text)
    if node_id is None and text.isdecimal() and int(text) in snapshot.nodes:
        node_id = int(text)
    if node_id is None:
        node_id = next((n.id for n in snapshot.nodes.values() if text in (n.ipv4, n.ipv6, n.stable_id)), None)
    if node_id is None:
        raise StateError(f"There is no node {name_or_id!r}.", remedy="See: buri admin nodes list")
    return snapshot.nodes[node_id]


def create_auth_key(
    snapshot: Snapshot,
    *,
    user: UserRecord | None,
    tags: Sequence[str],
    reusable: bool,
    ephemeral: bool,
    expires_s: float,
    now_s: float,
    entropy: bytes,
) -> tuple[Edit, AuthKeyRecord, str]:
    """The edit, the record and the key's text, shown this once. Raises ConfigError."""
    if user is None and not tags:
        raise ConfigError("A pre-auth key needs --user or --tags.", remedy="Its nodes must belong to somebody.")
    _check_tags(tags)
    text, prefix, digest = authkeys.make(entropy)
    record = AuthKeyRecord(
        id=snapshot.counters.auth_key,
        prefix=prefix,
        digest=digest,
        user_id=None if user is None else user.id,
        tags=tuple(dict.fromkeys(tags)),
        reusable=reusable,
        ephemeral=ephemeral,
        created_s=now_s,
        expires_s=expires_s,
    )
    edit = Edit(snapshot)
    edit.put_counters(msgspec.structs.replace(snapshot.counters, auth_key=record.id + 1))
    edit.put_auth_key(record)
    return edit, record, text


def find_auth_key(snapshot: Snapshot, id_or_prefix: str) -> AuthKeyRecord:
    """By number, prefix, or the whole key. Raises StateError, repeating nothing that may be a secret."""
    text = id_or_prefix.strip()
    prefix = text.removeprefix(f"{authkeys.HEAD}-").partition("-")[0]
    key_id = snapshot.by_auth_prefix.get(prefix)
    if key_id is None and text.isdecimal() and int(text) in snapshot.auth_keys:
        key_id = int(text)
    if key_id is None:
        raise StateError("There is no such pre-auth key.", remedy="See: buri admin preauthkeys list")
    return snapshot.auth_keys[key_id]


def _check_tags(tags: Sequence[str]) -> None:
    for tag in tags:
        if not _TAG.fullmatch(tag):
            raise ConfigError(f"{tag!r} is not a tag.", remedy="A tag reads tag:NAME, letters first, e.g. tag:server.")


def check_user_name(snapshot: Snapshot, name: str) -> None:
    """Raises ConfigError for an unfit name, StateError for a taken one."""
    if len(name) > MAX_USER_NAME or not _USER.fullmatch(name):
        raise ConfigError(
            f"{name!r} is not a user name.",
            remedy="Letters, digits and ._+- after a letter or digit, perhaps with @domain.",
        )
    if snapshot.user_named(name) is not None:
        raise StateError(f"User {name!r} exists already.")
