"""The tables, as SQLAlchemy Core sees them. How a database gets there is in `migrations`; a test holds both together.

Times are seconds since 1970 (REAL), 0 = never. Keys are their 32 bytes. Lists and Hostinfo are JSON text.
"""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

metadata = MetaData()


def _tailnet() -> Column[int]:
    return Column("tailnet", Integer, ForeignKey("tailnets.id"), nullable=False)


tailnets = Table(
    "tailnets",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("created_s", Float, nullable=False),
    Column("next_node", Integer, nullable=False),
    Column("next_user", Integer, nullable=False),
    Column("next_auth_key", Integer, nullable=False),
    Column("next_address", Integer, nullable=False),
    Column("next_policy", Integer, nullable=False, server_default="1"),
)

users = Table(
    "users",
    metadata,
    Column("id", Integer, primary_key=True),
    _tailnet(),
    Column("name", String, nullable=False),
    Column("display_name", String, nullable=False),
    Column("created_s", Float, nullable=False),
    Column("role", String, nullable=False, server_default="member"),
    Column("email", String, nullable=False, server_default=""),
    Column("picture", String, nullable=False, server_default=""),
    UniqueConstraint("tailnet", "name", name="users_name"),
)

identities = Table(
    "identities",
    metadata,
    _tailnet(),
    Column("issuer", String, nullable=False, primary_key=True),
    Column("subject", String, nullable=False, primary_key=True),
    Column("user_id", Integer, ForeignKey("users.id"), nullable=False),
    Column("email", String, nullable=False),
    Column("invited", Boolean, nullable=False),
    Column("created_s", Float, nullable=False),
    Column("used_s", Float, nullable=False),
)

passwords = Table(
    "passwords",
    metadata,
    _tailnet(),
    Column("user_id", Integer, ForeignKey("users.id"), primary_key=True),
    Column("hash", String, nullable=False),
    Column("changed_s", Float, nullable=False),
)

sessions = Table(
    "sessions",
    metadata,
    _tailnet(),
    Column("digest", LargeBinary, nullable=False, primary_key=True),
    Column("user_id", Integer, ForeignKey("users.id"), nullable=False),
    Column("created_s", Float, nullable=False),
    Column("expires_s", Float, nullable=False),
    Column("origin", LargeBinary, nullable=False),
)

links = Table(
    "links",
    metadata,
    _tailnet(),
    Column("digest", LargeBinary, nullable=False, primary_key=True),
    Column("kind", String, nullable=False),
    Column("user_id", Integer, ForeignKey("users.id"), nullable=True),
    Column("created_s", Float, nullable=False),
    Column("expires_s", Float, nullable=False),
)

policies = Table(
    "policies",
    metadata,
    Column("id", Integer, primary_key=True),
    _tailnet(),
    Column("text", String, nullable=False),
    Column("author", String, nullable=False),
    Column("created_s", Float, nullable=False),
)

preauth_keys = Table(
    "preauth_keys",
    metadata,
    Column("id", Integer, primary_key=True),
    _tailnet(),
    Column("prefix", String, nullable=False, unique=True),
    Column("digest", LargeBinary, nullable=False),
    Column("user_id", Integer, ForeignKey("users.id"), nullable=True),
    Column("tags", String, nullable=False),
    Column("reusable", Boolean, nullable=False),
    Column("ephemeral", Boolean, nullable=False),
    Column("created_s", Float, nullable=False),
    Column("expires_s", Float, nullable=False),
    Column("used_s", Float, nullable=False),
    Column("revoked_s", Float, nullable=False),
)

nodes = Table(
    "nodes",
    metadata,
    Column("id", Integer, primary_key=True),
    _tailnet(),
    Column("stable_id", String, nullable=False, unique=True),
    Column("machine", LargeBinary, nullable=False),
    Column("key", LargeBinary, nullable=False, unique=True),
    Column("disco", LargeBinary, nullable=False),
    Column("name", String, nullable=False),
    Column("name_pinned", Boolean, nullable=False),
    Column("user_id", Integer, ForeignKey("users.id"), nullable=True),
    Column("tags", String, nullable=False),
    Column("ipv4", String, nullable=False),
    Column("ipv6", String, nullable=False),
    Column("hostinfo", String, nullable=False),
    Column("cap", Integer, nullable=False),
    Column("endpoints", String, nullable=False),
    Column("home_derp", Integer, nullable=False),
    Column("ephemeral", Boolean, nullable=False),
    Column("authorized", Boolean, nullable=False),
    # No foreign key: a deleted key leaves its nodes as they are.
    Column("auth_key_id", Integer, nullable=True),
    Column("created_s", Float, nullable=False),
    Column("expiry_s", Float, nullable=False),
    Column("last_seen_s", Float, nullable=False),
    UniqueConstraint("tailnet", "name", name="nodes_name"),
    UniqueConstraint("tailnet", "ipv4", name="nodes_ipv4"),
    UniqueConstraint("tailnet", "ipv6", name="nodes_ipv6"),
)
