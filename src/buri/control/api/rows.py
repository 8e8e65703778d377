"""Records as the admin socket shows them."""

from __future__ import annotations

from collections import Counter

from buri.control.domain import authkeys
from buri.control.service import PendingLogin
from buri.control.snapshot import AuthKeyRecord, NodeRecord, Snapshot, UserRecord
from buri.wire.adminapi import AuthKeyRow, NewAuthKey, NodeRow, PendingRow, UserRow
from buri.wire.tailcfg.base import format_time


def moment(wall_s: float) -> str:
    return format_time(float(int(wall_s))) if wall_s else ""


def user_rows(snapshot: Snapshot) -> list[UserRow]:
    counts = Counter(node.user_id for node in snapshot.nodes.values())
    return [
        _user_row(snapshot, user, counts[user.id]) for user in sorted(snapshot.users.values(), key=lambda user: user.id)
    ]


def user_row(snapshot: Snapshot, user: UserRecord) -> UserRow:
    return _user_row(snapshot, user, sum(node.user_id == user.id for node in snapshot.nodes.values()))


def _user_row(snapshot: Snapshot, user: UserRecord, nodes: int) -> UserRow:
    return UserRow(
        id=user.id,
        name=user.name,
        display_name=user.display_name,
        created=moment(user.created_s),
        nodes=nodes,
        role=user.role,
        email=user.email,
        can_sign_in=snapshot.credentials.can_sign_in(user.id),
    )


def _user_name(snapshot: Snapshot, user_id: int | None) -> str:
    user = None if user_id is None else snapshot.users.get(user_id)
    return "" if user is None else user.name


def node_row(snapshot: Snapshot, node: NodeRecord, now_s: float) -> NodeRow:
    return NodeRow(
        id=node.id,
        stable_id=node.stable_id,
        name=node.name,
        fqdn=f"{node.name}.{snapshot.base_domain}",
        hostname=node.hostinfo.hostname,
        os=node.hostinfo.os,
        version=node.hostinfo.ipn_version,
        user=_user_name(snapshot, node.user_id),
        tags=list(node.tags),
        addresses=[node.ipv4, node.ipv6],
        endpoints=[str(endpoint) for endpoint in node.endpoints],
        home_derp=node.home_derp,
        online=node.online,
        last_seen=moment(now_s if node.online else node.last_seen_s),
        created=moment(node.created_s),
        expiry=moment(node.expiry_s),
        expired=node.expired(now_s),
        ephemeral=node.ephemeral,
        authorized=node.authorized,
        machine_key=str(node.machine),
        node_key=str(node.key),
        disco_key=str(node.disco),
    )


def pending_row(login: PendingLogin) -> PendingRow:
    return PendingRow(code=login.code, hostname=login.hostname, os=login.os, machine_key=str(login.machine))


def auth_key_row(snapshot: Snapshot, key: AuthKeyRecord, now_s: float) -> AuthKeyRow:
    return AuthKeyRow(
        id=key.id,
        prefix=key.prefix,
        user=_user_name(snapshot, key.user_id),
        tags=list(key.tags),
        reusable=key.reusable,
        ephemeral=key.ephemeral,
        created=moment(key.created_s),
        expiry=moment(key.expires_s),
        used=bool(key.used_s),
        state=authkeys.state(key, now_s),
    )


def new_auth_key(row: AuthKeyRow, key: str) -> NewAuthKey:
    return NewAuthKey(**{name: getattr(row, name) for name in AuthKeyRow.__struct_fields__}, key=key)
