"""How a database becomes one of this version: Alembic scripts, shipped in the package, run when a server starts.

Rules: scripts are only ever appended, never changed; every one runs in the transaction of the whole upgrade, so
that a failed upgrade leaves the database as it was.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from buri.core.errors import ConfigError

REVISIONS = ("0001", "0002", "0003")  # oldest first; a test holds this against the scripts
DIRECTORY = Path(__file__).parent


def revision_of(connection: Connection) -> str:
    """The database's revision, "" for an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return ""
    row = connection.execute(text("SELECT version_num FROM alembic_version")).first()
    return "" if row is None else str(row[0])


def upgrade(connection: Connection, path: Path) -> None:
    """Bring the database to this version, inside the caller's transaction. Raises ConfigError for a newer database."""
    revision = revision_of(connection)
    if revision == REVISIONS[-1]:
        return
    if revision and revision not in REVISIONS:
        raise ConfigError(
            f"The database {path} was written by a newer Buri (schema {revision}, this one knows {REVISIONS[-1]}).",
            remedy="Start that version again, or restore a backup from before its upgrade.",
        )
    from alembic import command  # late: a start without migration does without Alembic
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(DIRECTORY))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
