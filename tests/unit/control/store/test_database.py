"""The store: round trips, migrations, refusals, locks, and what survives kill -9."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from buri.control.coordinator import Coordinator
from buri.control.credentials import Credentials, IdentityRecord, LinkRecord, PasswordRecord, SessionRecord
from buri.control.edit import (
    DeleteCredential,
    DeleteNode,
    DeleteUser,
    PutCounters,
    PutCredential,
    PutNode,
    PutPolicy,
    PutUser,
    Write,
)
from buri.control.settings import Settings
from buri.control.snapshot import Counters, NodeRecord, PolicyRecord, UserRecord
from buri.control.store import migrations, schema
from buri.control.store.database import FILE_NAME, Database
from buri.control.store.lock import StateLock
from buri.control.store.writer import Writer
from buri.core.addresses import AddrPort
from buri.core.errors import BuriError, ConfigError, InUseError, NotPermittedError, SystemFault
from buri.core.keys import DiscoPublic, MachinePublic, NodePublic
from buri.testing.controlworld import derp_map
from buri.wire.tailcfg.node import Hostinfo, NetInfo

ALICE = UserRecord(id=1, name="alice", display_name="Alice", created_s=1.5)


def node(number: int = 1) -> NodeRecord:
    return NodeRecord(
        id=number,
        stable_id=f"n{number}CNTRL",
        machine=MachinePublic(bytes([number]) * 32),
        key=NodePublic(bytes([number, 1]) * 16),
        disco=DiscoPublic(bytes([number, 2]) * 16),
        name=f"box-{number}",
        name_pinned=True,
        user_id=1,
        tags=(),
        ipv4=f"100.64.0.{number}",
        ipv6=f"fd7a:115c:a1e0::{number}",
        hostinfo=Hostinfo(os="linux", hostname="box", net_info=NetInfo(preferred_derp=900, working_udp=True)),
        cap=142,
        endpoints=(AddrPort.parse("192.0.2.1:5"), AddrPort.parse("[2001:db8::1]:6")),
        home_derp=900,
        ephemeral=False,
        authorized=True,
        auth_key_id=7,
        created_s=1.25,
        expiry_s=2.5,
        last_seen_s=3.75,
    )


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    database = Database(tmp_path / FILE_NAME)
    counters = Counters(node=2, user=2, auth_key=8, address=1)
    database.commit([PutCounters(counters), PutUser(ALICE), PutNode(node())])
    database.close()
    database = Database(tmp_path / FILE_NAME)
    loaded = database.load()
    assert (loaded.nodes, loaded.users, loaded.counters) == ([node()], [ALICE], counters)
    database.commit([DeleteNode(1)])
    assert database.load().nodes == []
    database.close()


def policy(number: int) -> PolicyRecord:
    return PolicyRecord(id=number, text=f'{{"acls": []}} // {number}', author="alice", created_s=number + 0.5)


def test_policies_are_kept_and_the_oldest_let_go(tmp_path: Path) -> None:
    database = Database(tmp_path / FILE_NAME)
    database.commit([PutPolicy(policy(number), max(1, number - 2)) for number in range(1, 6)])
    database.commit([PutCounters(Counters(policy=6))])
    database.close()
    database = Database(tmp_path / FILE_NAME)
    loaded = database.load()
    assert loaded.policies == [policy(3), policy(4), policy(5)]
    assert loaded.counters.policy == 6
    database.close()


CREDENTIALS = (
    IdentityRecord("https://id.example", "1", 1, "a@example.com", True, 1.5, 2.5),
    IdentityRecord("https://id.example", "2", 1, "", False, 1.5, 2.5),
    PasswordRecord(1, "$argon2id$x", 3.5),
    SessionRecord(b"s" * 32, 1, 1.5, 9.5, b"origin"),
    LinkRecord(b"l" * 32, "invite", 1, 1.5, 9.5),
    LinkRecord(b"o" * 32, "owner", None, 1.5, 9.5),
)


def test_credentials_are_read_again_replaced_and_removed(tmp_path: Path) -> None:
    database = Database(tmp_path / FILE_NAME)
    database.commit([PutUser(ALICE), *(PutCredential(one) for one in CREDENTIALS)])
    later = PasswordRecord(1, "$argon2id$y", 4.5)
    database.commit([PutCredential(later), DeleteCredential(CREDENTIALS[1]), DeleteCredential(CREDENTIALS[3])])
    database.close()
    database = Database(tmp_path / FILE_NAME)
    kept = database.load().credentials
    assert kept == Credentials.build([CREDENTIALS[0], later, *CREDENTIALS[4:]])
    database.commit([*(DeleteCredential(one) for one in (CREDENTIALS[0], later, CREDENTIALS[4])), DeleteUser(ALICE.id)])
    assert database.load().credentials == Credentials.build([CREDENTIALS[5]])
    database.close()


def test_a_database_of_the_first_schema_keeps_its_users_and_gives_the_first_the_tailnet(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(migrations.DIRECTORY))
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for number, name in ((4, "bob"), (3, "alice")):
            connection.exec_driver_sql(
                f"INSERT INTO users (id, tailnet, name, display_name, created_s) VALUES ({number}, 1, '{name}', '', 1)"
            )
    engine.dispose()
    database = Database(path)
    assert {user.name: user.role for user in database.load().users} == {"alice": "owner", "bob": "member"}
    assert database.load().policies == []
    database.close()


def test_a_name_may_pass_from_one_node_to_another_in_one_commit(tmp_path: Path) -> None:
    database = Database(tmp_path / FILE_NAME)
    first, second = node(1), node(2)
    database.commit([PutUser(ALICE), PutNode(first), PutNode(second)])
    renamed = msgspec.structs.replace(first, name="other")
    heir = msgspec.structs.replace(second, name=first.name)
    database.commit([PutNode(renamed), PutNode(heir)])
    assert sorted(record.name for record in database.load().nodes) == ["box-1", "other"]
    database.close()


def test_a_failed_commit_leaves_nothing_behind(tmp_path: Path) -> None:
    database = Database(tmp_path / FILE_NAME)
    with pytest.raises(SystemFault, match="could not be written"):
        database.commit([PutUser(ALICE), PutNode(msgspec.structs.replace(node(), user_id=99))])
    assert database.load().users == []
    database.close()


@pytest.mark.parametrize(
    ("column", "value"),
    [("endpoints", '["nowhere"]'), ("hostinfo", "[" * 5000), ("machine", b"short"), ("disco", 7), ("tags", "\x00")],
)
def test_a_row_that_does_not_read_is_named_as_damage(tmp_path: Path, column: str, value: object) -> None:
    database = Database(tmp_path / FILE_NAME)
    database.commit([PutUser(ALICE), PutNode(node())])
    database.close()
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as raw, raw:
        raw.execute(f"UPDATE nodes SET {column} = ?", (value,))
    database = Database(tmp_path / FILE_NAME)
    with pytest.raises(ConfigError, match="does not read"):
        database.load()
    database.close()


def test_the_database_is_its_owners_alone(tmp_path: Path) -> None:
    Database(tmp_path / FILE_NAME).close()
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600


def test_the_migrations_make_the_schema(tmp_path: Path) -> None:
    Database(tmp_path / FILE_NAME).close()
    engine = create_engine(f"sqlite:///{tmp_path / FILE_NAME}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
    engine.dispose()


def test_the_list_of_revisions_is_that_of_the_scripts() -> None:
    scripts = ScriptDirectory(str(migrations.DIRECTORY)).walk_revisions()
    assert tuple(script.revision for script in scripts)[::-1] == migrations.REVISIONS


def test_a_newer_database_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    Database(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="newer Buri"):
        Database(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    path.write_bytes(b"x" * 8192)
    with pytest.raises(ConfigError, match="not an intact SQLite database"):
        Database(path)


def test_one_server_a_state_directory(tmp_path: Path) -> None:
    lock = StateLock(tmp_path / "state")
    with pytest.raises(InUseError, match="Another buri server"):
        StateLock(tmp_path / "state")
    lock.close()
    StateLock(tmp_path / "state").close()


def test_a_state_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((SystemFault, NotPermittedError), match="cannot be used"):
        StateLock(tmp_path / "file")


class Failing(Database):
    """Fails its first commit."""

    failed = False

    def commit(self, writes: Sequence[Write]) -> None:
        if not self.failed:
            self.failed = True
            raise SystemFault("The disk is full.")
        super().commit(writes)


def test_after_a_failure_nothing_that_was_built_on_it_is_written(tmp_path: Path) -> None:
    async def scenario() -> None:
        writer = Writer(Failing(tmp_path / FILE_NAME), asyncio.get_running_loop())
        outcomes: list[BuriError | None] = []
        finished = asyncio.Event()

        def done(error: BuriError | None) -> None:
            outcomes.append(error)
            if len(outcomes) == 3:
                finished.set()

        writer.submit(0, [PutUser(ALICE)], done)
        while not outcomes:
            await asyncio.sleep(0)
        writer.submit(0, [PutUser(ALICE)], done)
        writer.submit(1, [PutUser(msgspec.structs.replace(ALICE, name="bob"))], done)
        await finished.wait()
        assert [error is None for error in outcomes] == [False, False, True]
        writer.close()

    asyncio.run(scenario())
    database = Database(tmp_path / FILE_NAME)
    assert [user.name for user in database.load().users] == ["bob"]
    database.close()


REGISTER_FOR_EVER = """
import asyncio, sys
from pathlib import Path
from buri.control.coordinator import Coordinator
from buri.control.settings import Settings
from buri.wire.tailcfg.derpmap import DERPMap
from buri.core.keys import MachinePublic, NodePublic
from buri.wire.tailcfg.register import RegisterAuth, RegisterRequest
import os

async def main():
    server = await Coordinator.open(Path(sys.argv[1]), Settings(url="http://localhost:8080"), DERPMap())
    if server.admin.snapshot.user_named("alice") is None:
        await server.admin.create_user("alice")
    _, auth = await server.admin.create_auth_key(user="alice", reusable=True, lifetime_s=0)
    async def client():
        while True:
            key = NodePublic(os.urandom(32))
            request = RegisterRequest(version=142, node_key=str(key), auth=RegisterAuth(auth_key=auth))
            answer = await server.register(MachinePublic(os.urandom(32)), request)
            assert answer.machine_authorized, answer
            sys.stdout.write(str(key) + chr(10))
            sys.stdout.flush()
    await asyncio.gather(*(client() for _ in range(8)))

asyncio.run(main())
"""


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_by_kill_9(tmp_path: Path) -> None:
    source = Path(__file__).resolve().parents[4] / "src"
    acknowledged: set[str] = set()
    for round_number in range(3):
        server = subprocess.Popen(
            [sys.executable, "-c", REGISTER_FOR_EVER, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(source)},
        )
        assert server.stdout is not None
        for _ in range(40 + 13 * round_number):
            acknowledged.add(server.stdout.readline().strip())
        server.send_signal(signal.SIGKILL)
        acknowledged |= {line.strip() for line in server.stdout.read().splitlines(keepends=True) if line.endswith("\n")}
        server.wait()
        server.stdout.close()
    database = Database(tmp_path / FILE_NAME)
    loaded = database.load()
    database.close()
    assert acknowledged
    assert acknowledged <= {str(record.key) for record in loaded.nodes}
    assert len({record.ipv4 for record in loaded.nodes}) == len(loaded.nodes)
    assert loaded.counters.node > max(record.id for record in loaded.nodes)


def test_a_coordinator_gives_its_directory_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        for expected in (0, 1):
            server = await Coordinator.open(tmp_path, Settings(url="http://localhost:8080"), derp_map(900))
            assert len(server.admin.snapshot.users) == expected
            with pytest.raises(InUseError):
                await Coordinator.open(tmp_path, Settings(url="http://localhost:8080"), derp_map(900))
            if not expected:
                await server.admin.create_user("alice")
            await server.close()

    asyncio.run(scenario())


class Cramped(Database):
    """On a disk that holds so many pages, as SQLite sees it."""

    def set_pages(self, pages: int) -> None:
        self._connection.exec_driver_sql(f"PRAGMA max_page_count={pages}").close()
        self._connection.rollback()


def test_a_full_disk_is_one_sentence_and_no_loss(tmp_path: Path) -> None:
    database = Cramped(tmp_path / FILE_NAME)
    database.commit([PutUser(ALICE)])
    many = [PutNode(node(number)) for number in range(1, 200)]
    database.set_pages(20)
    with pytest.raises(SystemFault, match="full"):
        database.commit(many)
    database.set_pages(1 << 20)
    database.commit(many)
    assert (len(database.load().nodes), len(database.load().users)) == (199, 1)
    database.close()


def spoil(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE nodes SET hostinfo = 'no json'",
        "UPDATE nodes SET machine = x'00'",
        "UPDATE nodes SET endpoints = '[\"nowhere\"]'",
        "DELETE FROM tailnets",
        "DROP TABLE nodes",
    ],
)
def test_a_database_whose_rows_do_not_read_is_refused_in_one_sentence(tmp_path: Path, statement: str) -> None:
    database = Database(tmp_path / FILE_NAME)
    database.commit([PutUser(ALICE), PutNode(node())])
    database.close()
    spoil(tmp_path / FILE_NAME, statement)
    before = (tmp_path / FILE_NAME).read_bytes()

    async def start() -> None:
        await Coordinator.open(tmp_path, Settings(url="http://localhost:8080"), derp_map(900))

    with pytest.raises(ConfigError, match=r"server\.db") as refusal:
        asyncio.run(start())
    assert "Restore a backup" in refusal.value.remedy
    assert (tmp_path / FILE_NAME).read_bytes() == before
    StateLock(tmp_path).close()


def test_pages_that_are_overwritten_are_named_damage(tmp_path: Path) -> None:
    database = Database(tmp_path / FILE_NAME)
    database.commit([PutUser(ALICE), *(PutNode(node(number)) for number in range(1, 200))])
    database.close()
    damaged = bytearray((tmp_path / FILE_NAME).read_bytes())
    damaged[4096:] = b"\xa5" * (len(damaged) - 4096)
    (tmp_path / FILE_NAME).write_bytes(damaged)
    with pytest.raises(ConfigError, match="not an intact SQLite database"):
        Database(tmp_path / FILE_NAME).load()


class Impatient(Database):
    """Does not wait for a lock, so that the test need not."""

    def hurry(self) -> None:
        self._connection.exec_driver_sql("PRAGMA busy_timeout=0").close()
        self._connection.rollback()


def test_a_database_that_another_program_holds_is_said_and_written_to_once_it_is_free(tmp_path: Path) -> None:
    database = Impatient(tmp_path / FILE_NAME)
    database.hurry()
    holder = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(InUseError, match="held by another program"):
        database.commit([PutUser(ALICE)])
    holder.execute("ROLLBACK")
    database.commit([PutUser(ALICE)])
    assert database.load().users == [ALICE]
    holder.close()
    database.close()
