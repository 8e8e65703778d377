"""The tailnet's policy with its history, and the users' roles, which policies ask for. The first user owns the tailnet."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("tailnets", sa.Column("next_policy", sa.Integer, nullable=False, server_default="1"))
    op.add_column("users", sa.Column("role", sa.String, nullable=False, server_default="member"))
    op.execute("UPDATE users SET role = 'owner' WHERE id IN (SELECT MIN(id) FROM users GROUP BY tailnet)")
    op.create_table(
        "policies",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("tailnet", sa.Integer, sa.ForeignKey("tailnets.id"), nullable=False),
        sa.Column("text", sa.String, nullable=False),
        sa.Column("author", sa.String, nullable=False),
        sa.Column("created_s", sa.Float, nullable=False),
    )
