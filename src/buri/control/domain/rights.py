"""Who may do what on this server: owners and admins administer it, everybody else sees and manages their own machines."""

from __future__ import annotations

from buri.control.snapshot import NodeRecord, Snapshot, UserRecord


def administers(user: UserRecord) -> bool:
    """Whether a person sees and manages everybody's machines, keys and settings."""
    return user.role in ("owner", "admin")


def may_manage(user: UserRecord, node: NodeRecord) -> bool:
    """Whether a person may see, rename, expire or delete a node; a tagged one belongs to the tailnet."""
    return administers(user) or (not node.tags and node.user_id == user.id)


def may_grant(user: UserRecord, other: UserRecord, role: str) -> bool:
    """Whether a person may give `other` a role. Owners are made and unmade by owners alone."""
    if user.role == "owner":
        return True
    return user.role == "admin" and "owner" not in (role, other.role)


def visible_nodes(snapshot: Snapshot, user: UserRecord) -> list[NodeRecord]:
    """The nodes that a person may see, oldest first."""
    return [node for _, node in sorted(snapshot.nodes.items()) if may_manage(user, node)]
