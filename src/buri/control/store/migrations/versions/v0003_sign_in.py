"""How people sign in: identities at providers, passwords, sessions, one-time links; a user's e-mail and picture."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("users", sa.Column("email", sa.String, nullable=False, server_default=""))
    op.add_column("users", sa.Column("picture", sa.String, nullable=False, server_default=""))
    op.create_table(
        "identities",
        sa.Column("tailnet", sa.Integer, sa.ForeignKey("tailnets.id"), nullable=False),
        sa.Column("issuer", sa.String, nullable=False, primary_key=True),
        sa.Column("subject", sa.String, nullable=False, primary_key=True),
        sa.Column("user_id", sa.Integer, sa.ForeignKey("users.id"), nullable=False),
        sa.Column("email", sa.String, nullable=False),
        sa.Column("invited", sa.Boolean, nullable=False),
        sa.Column("created_s", sa.Float, nullable=False),
        sa.Column("used_s", sa.Float, nullable=False),
    )
    op.create_table(
        "passwords",
        sa.Column("tailnet", sa.Integer, sa.ForeignKey("tailnets.id"), nullable=False),
        sa.Column("user_id", sa.Integer, sa.ForeignKey("users.id"), primary_key=True),
        sa.Column("hash", sa.String, nullable=False),
        sa.Column("changed_s", sa.Float, nullable=False),
    )
    op.create_table(
        "sessions",
        sa.Column("tailnet", sa.Integer, sa.ForeignKey("tailnets.id"), nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False, primary_key=True),
        sa.Column("user_id", sa.Integer, sa.ForeignKey("users.id"), nullable=False),
        sa.Column("created_s", sa.Float, nullable=False),
        sa.Column("expires_s", sa.Float, nullable=False),
        sa.Column("origin", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "links",
        sa.Column("tailnet", sa.Integer, sa.ForeignKey("tailnets.id"), nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False, primary_key=True),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("user_id", sa.Integer, sa.ForeignKey("users.id"), nullable=True),
        sa.Column("created_s", sa.Float, nullable=False),
        sa.Column("expires_s", sa.Float, nullable=False),
    )
