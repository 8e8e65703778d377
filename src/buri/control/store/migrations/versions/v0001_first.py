"""The first schema: tailnets, users, pre-auth keys, nodes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "tailnets",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String, nullable=False, unique=True),
        sa.Column("created_s", sa.Float, nullable=False),
        sa.Column("next_node", sa.Integer, nullable=False),
        sa.Column("next_user", sa.Integer, nullable=False),
        sa.Column("next_auth_key", sa.Integer, nullable=False),
        sa.Column("next_address", sa.Integer, nullable=False),
    )
    op.create_table(
        "users",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("tailnet", sa.Integer, sa.ForeignKey("tailnets.id"), nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("display_name", sa.String, nullable=False),
        sa.Column("created_s", sa.Float, nullable=False),
        sa.UniqueConstraint("tailnet", "name", name="users_name"),
    )
    op.create_table(
        "preauth_keys",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("tailnet", sa.Integer, sa.ForeignKey("tailnets.id"), nullable=False),
        sa.Column("prefix", sa.String, nullable=False, unique=True),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("user_id", sa.Integer, sa.ForeignKey("users.id"), nullable=True),
        sa.Column("tags", sa.String, nullable=False),
        sa.Column("reusable", sa.Boolean, nullable=False),
        sa.Column("ephemeral", sa.Boolean, nullable=False),
        sa.Column("created_s", sa.Float, nullable=False),
        sa.Column("expires_s", sa.Float, nullable=False),
        sa.Column("used_s", sa.Float, nullable=False),
        sa.Column("revoked_s", sa.Float, nullable=False),
    )
    op.create_table(
        "nodes",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("tailnet", sa.Integer, sa.ForeignKey("tailnets.id"), nullable=False),
        sa.Column("stable_id", sa.String, nullable=False, unique=True),
        sa.Column("machine", sa.LargeBinary, nullable=False),
        sa.Column("key", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("disco", sa.LargeBinary, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("name_pinned", sa.Boolean, nullable=False),
        sa.Column("user_id", sa.Integer, sa.ForeignKey("users.id"), nullable=True),
        sa.Column("tags", sa.String, nullable=False),
        sa.Column("ipv4", sa.String, nullable=False),
        sa.Column("ipv6", sa.String, nullable=False),
        sa.Column("hostinfo", sa.String, nullable=False),
        sa.Column("cap", sa.Integer, nullable=False),
        sa.Column("endpoints", sa.String, nullable=False),
        sa.Column("home_derp", sa.Integer, nullable=False),
        sa.Column("ephemeral", sa.Boolean, nullable=False),
        sa.Column("authorized", sa.Boolean, nullable=False),
        sa.Column("auth_key_id", sa.Integer, nullable=True),
        sa.Column("created_s", sa.Float, nullable=False),
        sa.Column("expiry_s", sa.Float, nullable=False),
        sa.Column("last_seen_s", sa.Float, nullable=False),
        sa.UniqueConstraint("tailnet", "name", name="nodes_name"),
        sa.UniqueConstraint("tailnet", "ipv4", name="nodes_ipv4"),
        sa.UniqueConstraint("tailnet", "ipv6", name="nodes_ipv6"),
    )
    op.execute(
        "INSERT INTO tailnets (id, name, created_s, next_node, next_user, next_auth_key, next_address) "
        "VALUES (1, 'default', 0, 1, 1, 1, 0)"
    )
