"""The SQLite file: opened, migrated, read once, and written by batches of `edit.Write`.

WAL with `synchronous=FULL`: what a commit returned for is on the disk, `kill -9` and power cuts included. Calls
block; `writer.Writer` gives them a thread.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, Delete, Table, create_engine, delete, event, select, update
from sqlalchemy.dialects.sqlite import Insert, insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

from buri.control.credentials import (
    Credential,
    Credentials,
    IdentityRecord,
    LinkRecord,
    PasswordRecord,
    SessionRecord,
)
from buri.control.edit import (
    DeleteAuthKey,
    DeleteCredential,
    DeleteNode,
    DeleteUser,
    PutAuthKey,
    PutCounters,
    PutCredential,
    PutNode,
    PutPolicy,
    PutUser,
    Write,
)
from buri.control.snapshot import AuthKeyRecord, Counters, NodeRecord, PolicyRecord, UserRecord
from buri.control.store import migrations, rows, schema
from buri.core.errors import ConfigError, InUseError, SystemFault

FILE_NAME = "server.db"
_RESTORE = "Restore a backup, or move it away to begin anew."
TAILNET = 1


class Loaded(msgspec.Struct, frozen=True):
    """Everything a tailnet's snapshot is built from."""

    nodes: list[NodeRecord]
    users: list[UserRecord]
    auth_keys: list[AuthKeyRecord]
    counters: Counters
    policies: list[PolicyRecord]
    credentials: Credentials


class Database:
    """An open database. Raises ConfigError for a newer or foreign file, SystemFault when the disk will not have it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise SystemFault(f"The database {path} cannot be opened: {error.strerror}.") from error
        self._engine = create_engine(
            f"sqlite:///{path}", poolclass=StaticPool, connect_args={"check_same_thread": False, "timeout": 10}
        )
        event.listen(self._engine, "connect", _configure)
        event.listen(self._engine, "begin", _begin)
        try:
            self._connection: Connection = self._engine.connect()
            with self._connection.begin():
                migrations.upgrade(self._connection, path)
        except DBAPIError as error:
            self._engine.dispose()
            raise _fault(path, error) from error
        except BaseException:
            self._connection.close()
            self._engine.dispose()
            raise

    def load(self) -> Loaded:
        """Read all of the tailnet. Raises ConfigError for rows that do not read, SystemFault when the disk fails."""
        try:
            return self._load()
        except DBAPIError as error:
            raise _fault(self.path, error) from error
        except rows.UNREADABLE as error:
            raise ConfigError(
                f"The database {self.path} holds something that does not read ({error}).", remedy=_RESTORE
            ) from error

    def _load(self) -> Loaded:
        with self._connection.begin():
            tailnet = self._rows(schema.tailnets, schema.tailnets.c.id == TAILNET)[0]
            return Loaded(
                nodes=[rows.node_record(r) for r in self._rows(schema.nodes, schema.nodes.c.tailnet == TAILNET)],
                users=[rows.user_record(r) for r in self._rows(schema.users, schema.users.c.tailnet == TAILNET)],
                auth_keys=[
                    rows.auth_key_record(r)
                    for r in self._rows(schema.preauth_keys, schema.preauth_keys.c.tailnet == TAILNET)
                ],
                counters=Counters(
                    node=tailnet["next_node"],
                    user=tailnet["next_user"],
                    auth_key=tailnet["next_auth_key"],
                    address=tailnet["next_address"],
                    policy=tailnet["next_policy"],
                ),
                policies=sorted(
                    (rows.policy_record(r) for r in self._rows(schema.policies, schema.policies.c.tailnet == TAILNET)),
                    key=lambda policy: policy.id,
                ),
                credentials=Credentials.build(
                    [
                        rows.credential_record(kind, row)
                        for kind, table in _CREDENTIALS.items()
                        for row in self._rows(table, table.c.tailnet == TAILNET)
                    ]
                ),
            )

    def commit(self, writes: Sequence[Write]) -> None:
        """Apply all in order in one transaction; on return they are on the disk. SystemFault: nothing was done."""
        try:
            with self._connection.begin():
                # Counters only grow, so the last word on them is enough; it would else cut every run in two.
                counters = [write for write in writes if isinstance(write, PutCounters)][-1:]
                others = (write for write in writes if not isinstance(write, PutCounters))
                for kind, run in groupby([*counters, *others], type):
                    self._apply(kind, list(run))
        except DBAPIError as error:
            raise _fault(self.path, error) from error

    def close(self) -> None:
        self._connection.close()
        self._engine.dispose()

    def _rows(self, table: Table, condition: Any) -> Sequence[rows.Row]:
        return [dict(row) for row in self._connection.execute(select(table).where(condition)).mappings()]

    def _apply(self, kind: type, run: list[Any]) -> None:
        execute = self._connection.execute
        if kind is PutNode:
            execute(_PUT_NODE, [rows.node_row(TAILNET, write.node) for write in run])
        elif kind is PutCounters:
            last: Counters = run[0].counters
            execute(
                update(schema.tailnets)
                .where(schema.tailnets.c.id == TAILNET)
                .values(
                    next_node=last.node,
                    next_user=last.user,
                    next_auth_key=last.auth_key,
                    next_address=last.address,
                    next_policy=last.policy,
                )
            )
        elif kind is PutAuthKey:
            execute(_PUT_AUTH_KEY, [rows.auth_key_row(TAILNET, write.key) for write in run])
        elif kind is PutUser:
            execute(_PUT_USER, [rows.user_row(TAILNET, write.user) for write in run])
        elif kind is PutPolicy:
            execute(insert(schema.policies), [rows.policy_row(TAILNET, write.policy) for write in run])
            execute(delete(schema.policies).where(schema.policies.c.id < run[-1].oldest_kept))
        elif kind is PutCredential:
            for write in run:
                execute(_CREDENTIAL_PUTS[type(write.record)], rows.credential_row(TAILNET, write.record))
        elif kind is DeleteCredential:
            for write in run:
                execute(_without_credential(write.record))
        elif kind is DeleteNode:
            execute(_without(schema.nodes, [write.node_id for write in run]))
        elif kind is DeleteUser:
            execute(_without(schema.users, [write.user_id for write in run]))
        elif kind is DeleteAuthKey:
            execute(_without(schema.preauth_keys, [write.key_id for write in run]))


def _put(table: Table) -> Insert:
    statement = insert(table)
    columns = {column.name: statement.excluded[column.name] for column in table.columns if not column.primary_key}
    return statement.on_conflict_do_update(index_elements=list(table.primary_key.columns), set_=columns)


def _without(table: Table, ids: list[int]) -> Delete:
    return delete(table).where(table.c.id.in_(ids))


_PUT_NODE = _put(schema.nodes)
_PUT_AUTH_KEY = _put(schema.preauth_keys)
_PUT_USER = _put(schema.users)
_CREDENTIALS: dict[type[Credential], Table] = {
    IdentityRecord: schema.identities,
    PasswordRecord: schema.passwords,
    SessionRecord: schema.sessions,
    LinkRecord: schema.links,
}
_CREDENTIAL_PUTS = {kind: _put(table) for kind, table in _CREDENTIALS.items()}


def _without_credential(record: Credential) -> Delete:
    table = _CREDENTIALS[type(record)]
    return delete(table).where(*(column == getattr(record, column.name) for column in table.primary_key.columns))


def _configure(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves, so that DDL is in the transaction too
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _fault(path: Path, error: DBAPIError) -> SystemFault | ConfigError:
    reason = str(error.orig)
    if any(word in reason for word in ("not a database", "malformed", "no such table", "no such column")):
        return ConfigError(f"{path} is not an intact SQLite database ({reason}).", remedy=_RESTORE)
    if "locked" in reason:
        return InUseError(f"The database {path} is held by another program.", remedy="End it (a backup, an sqlite3?).")
    remedy = ""
    if "full" in reason:
        remedy = "Free some space; nothing acknowledged is lost."
    elif "readonly" in reason or "unable to open" in reason:
        remedy = "Give this user the right to write there, and to every file beside it."
    return SystemFault(f"The database {path} could not be written: {reason}.", remedy=remedy)
