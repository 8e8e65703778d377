"""The admin socket's verbs: a request to a call of `Admin`, its outcome to rows."""

from __future__ import annotations

from typing import Any

from buri.control.admin import Admin
from buri.control.api import policyverbs, rows
from buri.control.domain import accounts
from buri.control.people import INVITE_LIFETIME_S, PASSWORD_LINK_LIFETIME_S, People
from buri.control.policies import Policies
from buri.control.snapshot import NodeRecord
from buri.wire import adminapi as api

UsersRequest = api.ListUsers | api.CreateUser | api.RenameUser | api.DeleteUser | api.GrantRole
LinkRequest = api.InviteUser | api.MakePasswordLink


class Verbs:
    """Carries out one request. Raises the errors of core.errors that `Admin` raises."""

    def __init__(self, admin: Admin, policies: Policies, people: People, url: str) -> None:
        self._admin = admin
        self._people = people
        self._url = url
        self._policies = policies

    async def carry_out(self, request: api.Request) -> Any:
        """What goes into `Reply.result`."""
        admin = self._admin
        match request:
            case api.ListUsers() | api.CreateUser() | api.RenameUser() | api.DeleteUser() | api.GrantRole():
                return await self._users(request)
            case api.InviteUser() | api.MakePasswordLink():
                return await self._link(request)
            case api.ListNodes() | api.ShowNode():
                return self._read_nodes(request)
            case api.ExpireNode(node=node, after_s=after_s, never=never):
                at_s = 0.0 if never else admin.now_s() + after_s if after_s > 0 else None
                return self._node(await admin.expire_node(node, at_s))
            case api.NodeExpiry(node=node, extend_s=extend_s) if extend_s:
                return self._node(await admin.extend_expiry(node, extend_s))
            case api.NodeExpiry(node=node, enabled=enabled):
                return self._node(await (admin.enable_expiry if enabled else admin.disable_expiry)(node))
            case api.DeleteNode(node=node):
                return self._node(await admin.delete_node(node))
            case api.RenameNode(node=node, name=name):
                return self._node(await admin.rename_node(node, name))
            case api.ApproveNode(code=code, user=user):
                return self._node(await admin.approve(code, user))
            case api.RejectNode(code=code):
                admin.reject(code)
                return None
            case api.ListPending():
                return [rows.pending_row(login) for login in admin.pending_logins()]
            case api.CreateAuthKey() | api.ListAuthKeys() | api.RevokeAuthKey():
                return await self._auth_keys(request)
            case api.TagNode(node=node, tags=tags):
                return self._node(await admin.tag_node(node, tags))
            case _:
                return await policyverbs.carry_out(self._policies, admin.snapshot, request)

    async def _users(self, request: UsersRequest) -> Any:
        admin = self._admin
        match request:
            case api.ListUsers():
                return rows.user_rows(admin.snapshot)
            case api.CreateUser(name=name, display_name=display_name):
                user = await admin.create_user(name, display_name)
            case api.RenameUser(user=old, name=name):
                user = await admin.rename_user(old, name)
            case api.DeleteUser(user=name):
                user = await admin.delete_user(name)
            case api.GrantRole(user=name, role=role):
                user = await admin.grant_role(name, role)
        return rows.user_row(admin.snapshot, user)

    async def _link(self, request: LinkRequest) -> api.NewLink:
        match request:
            case api.InviteUser(name=name, display_name=display_name, role=role):
                user, token = await self._people.invite(name, display_name, role)
                lifetime_s = INVITE_LIFETIME_S
            case api.MakePasswordLink(user=name):
                user, token = await self._people.password_link(name)
                lifetime_s = PASSWORD_LINK_LIFETIME_S
        row = rows.user_row(self._admin.snapshot, user)
        return api.NewLink(user=row, url=f"{self._url}/welcome/{token}", lifetime_s=lifetime_s)

    def _read_nodes(self, request: api.ListNodes | api.ShowNode) -> Any:
        if isinstance(request, api.ShowNode):
            return self._node(self._admin.node(request.node))
        snapshot = self._admin.snapshot
        owner = accounts.find_user(snapshot, request.user).id if request.user else None
        nodes = sorted(snapshot.nodes.values(), key=lambda node: node.id)
        return [self._node(node) for node in nodes if owner is None or node.user_id == owner]

    async def _auth_keys(self, request: api.CreateAuthKey | api.ListAuthKeys | api.RevokeAuthKey) -> Any:
        admin = self._admin
        match request:
            case api.CreateAuthKey():
                record, key = await admin.create_auth_key(
                    user=request.user,
                    tags=request.tags,
                    reusable=request.reusable,
                    ephemeral=request.ephemeral,
                    lifetime_s=request.lifetime_s,
                )
                return rows.new_auth_key(rows.auth_key_row(admin.snapshot, record, admin.now_s()), key)
            case api.ListAuthKeys():
                keys = sorted(admin.snapshot.auth_keys.values(), key=lambda key: key.id)
                return [rows.auth_key_row(admin.snapshot, key, admin.now_s()) for key in keys]
            case api.RevokeAuthKey(key=key):
                record = await admin.revoke_auth_key(key)
                return rows.auth_key_row(admin.snapshot, record, admin.now_s())

    def _node(self, node: NodeRecord) -> api.NodeRow:
        return rows.node_row(self._admin.snapshot, node, self._admin.now_s())
