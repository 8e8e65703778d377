"""What an administrator may do: the domain behind the admin socket and, later, the console and the REST API."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from buri.control.clock import Clock
from buri.control.domain import accounts, authkeys, expiry, names
from buri.control.edit import Edit
from buri.control.ledger import Ledger
from buri.control.registrar import Registrar
from buri.control.service import PendingLogin
from buri.control.settings import Settings
from buri.control.snapshot import AuthKeyRecord, NodeRecord, Snapshot, UserRecord
from buri.core.errors import ConfigError, StateError


class Admin:
    """Every change is committed on return. Errors are of core.errors, written for the administrator."""

    def __init__(
        self,
        ledger: Ledger,
        registrar: Registrar,
        clock: Clock,
        settings: Settings,
        entropy: Callable[[int], bytes],
    ) -> None:
        self._ledger = ledger
        self._settings = settings
        self._registrar = registrar
        self._clock = clock
        self._entropy = entropy

    @property
    def snapshot(self) -> Snapshot:
        """The newest committed state."""
        return self._ledger.snapshot

    def now_s(self) -> float:
        return self._clock.wall_s()

    async def create_user(self, name: str, display_name: str = "") -> UserRecord:
        edit, user = accounts.create_user(self._ledger.head, name, display_name, self.now_s())
        await self._ledger.enter(edit)
        return user

    async def rename_user(self, name_or_id: str, name: str) -> UserRecord:
        user = accounts.find_user(self._ledger.head, name_or_id)
        edit, renamed = accounts.rename_user(self._ledger.head, user, name)
        await self._ledger.enter(edit)
        return renamed

    async def delete_user(self, name_or_id: str) -> UserRecord:
        user = accounts.find_user(self._ledger.head, name_or_id)
        await self._ledger.enter(accounts.delete_user(self._ledger.head, user))
        return user

    async def grant_role(self, name_or_id: str, role: str) -> UserRecord:
        """Make a user owner, admin, …: what the policy's autogroups ask for."""
        user = accounts.find_user(self._ledger.head, name_or_id)
        edit, changed = accounts.grant_role(self._ledger.head, user, role)
        await self._ledger.enter(edit)
        return changed

    async def tag_node(self, name_or_id: str, tags: Sequence[str]) -> NodeRecord:
        """Let a node belong to tags instead of a person; its key then never expires. Raises ConfigError."""
        node = accounts.find_node(self._ledger.head, name_or_id)
        return await self._put(accounts.tagged(node, tags))

    def node(self, name_or_id: str) -> NodeRecord:
        return accounts.find_node(self._ledger.snapshot, name_or_id)

    async def approve(self, code: str, user: str) -> NodeRecord:
        """Let a waiting login in as a node of a user."""
        owner = accounts.find_user(self._ledger.head, user)
        return await self._registrar.approve(code, owner)

    def pending_logins(self) -> list[PendingLogin]:
        """Logins that wait for approval, oldest first."""
        return self._registrar.pending_logins()

    def reject(self, code: str) -> None:
        self._registrar.reject(code)

    async def rename_node(self, name_or_id: str, name: str) -> NodeRecord:
        """Give a node a name that its host name no longer changes; "" lets the host name decide again."""
        node = accounts.find_node(self._ledger.head, name_or_id)
        if not name:
            others = {taken for taken, node_id in self._ledger.head.by_name.items() if node_id != node.id}
            label, pinned = names.unique(names.sanitise(node.hostinfo.hostname), others), False
        else:
            label, pinned = names.check_label(name), True
            if self._ledger.head.by_name.get(label, node.id) != node.id:
                raise StateError(f"Another node is called {label!r} already.")
        return await self._put(msgspec.structs.replace(node, name=label, name_pinned=pinned))

    async def expire_node(self, name_or_id: str, expiry_s: float | None) -> NodeRecord:
        """End a node's key at a time, 0 = never, None = now."""
        node = accounts.find_node(self._ledger.head, name_or_id)
        now_s = self.now_s()
        # One second back, so that "now" is past for every clock that reads it.
        at_s = now_s - 1 if expiry_s is None else expiry.check_end(expiry_s)
        edit = expiry.set_expiry(self._ledger.head, node, at_s, now_s)
        await self._ledger.enter(edit)
        changed = edit.snapshot.nodes[node.id]
        if node.expired(now_s) and not changed.expired(now_s):
            await self._registrar.readmit(changed)
        return changed

    async def disable_expiry(self, name_or_id: str) -> NodeRecord:
        """Let a node's key live for ever; an expired node is back without a login."""
        return await self.expire_node(name_or_id, 0.0)

    async def enable_expiry(self, name_or_id: str) -> NodeRecord:
        """Let a node's key end after the tailnet's lifetime from now. Raises StateError where keys do not expire."""
        node = accounts.find_node(self._ledger.head, name_or_id)
        at_s = expiry.enabled_expiry_s(node, self._settings.key_expiry_s, self.now_s())
        return await self.expire_node(name_or_id, at_s)

    async def extend_expiry(self, name_or_id: str, by_s: float) -> NodeRecord:
        """Let a node's key last longer; an expired node is back without a login. Raises ConfigError."""
        if by_s <= 0:
            raise ConfigError("An extension must be a time, such as 90d.", remedy="For ever is: expiry disable NODE.")
        node = accounts.find_node(self._ledger.head, name_or_id)
        return await self.expire_node(name_or_id, expiry.extended_expiry_s(node, by_s, self.now_s()))

    async def delete_node(self, name_or_id: str) -> NodeRecord:
        node = accounts.find_node(self._ledger.head, name_or_id)
        edit = Edit(self._ledger.head)
        edit.remove_node(node.id)
        await self._ledger.enter(edit)
        return node

    async def create_auth_key(
        self,
        *,
        user: str = "",
        tags: Sequence[str] = (),
        reusable: bool = False,
        ephemeral: bool = False,
        lifetime_s: float,
    ) -> tuple[AuthKeyRecord, str]:
        """A record and the key's text, which nobody can read again. `lifetime_s` 0 = for ever."""
        if lifetime_s < 0:
            raise ConfigError("A pre-auth key cannot expire in the past.")
        now_s = self.now_s()
        edit, record, text = accounts.create_auth_key(
            self._ledger.head,
            user=accounts.find_user(self._ledger.head, user) if user else None,
            tags=tags,
            reusable=reusable,
            ephemeral=ephemeral,
            expires_s=expiry.check_end(now_s + lifetime_s) if lifetime_s else 0.0,
            now_s=now_s,
            entropy=self._entropy(authkeys.ENTROPY_BYTES),
        )
        await self._ledger.enter(edit)
        return record, text

    async def first_auth_key(self, kept: str, user: str, *, lifetime_s: float) -> tuple[AuthKeyRecord, str]:
        """The key of a server without nodes: the `kept` one while it lasts, else a new one in its place.

        It belongs to the first user there is, and to a new `user` where there is none.
        """
        head, now_s = self._ledger.head, self.now_s()
        record = authkeys.find(head, kept) if kept else None
        if record is not None:
            if not authkeys.objection(record, now_s) and record.expires_s >= now_s + lifetime_s / 2:
                return record, kept.strip()
            if not record.used_s:
                edit = Edit(head)
                edit.remove_auth_key(record.id)
                await self._ledger.enter(edit)
        owner = next(iter(head.users.values()), None) or await self.create_user(user)
        return await self.create_auth_key(user=owner.name, lifetime_s=lifetime_s)

    async def revoke_auth_key(self, id_or_prefix: str) -> AuthKeyRecord:
        """Let nobody join by this key any more; nodes that did stay."""
        record = accounts.find_auth_key(self._ledger.head, id_or_prefix)
        if not record.revoked_s:
            record = msgspec.structs.replace(record, revoked_s=self.now_s())
            edit = Edit(self._ledger.head)
            edit.put_auth_key(record)
            await self._ledger.enter(edit)
        return record

    async def _put(self, node: NodeRecord) -> NodeRecord:
        edit = Edit(self._ledger.head)
        edit.put_node(node, self.now_s())
        await self._ledger.enter(edit)
        return node
