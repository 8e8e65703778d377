"""`buri admin` against a server's admin socket."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from buri.cli.admin import command
from buri.cli.admin_format import duration
from buri.control.api import adminsocket
from buri.control.api.adminsocket import AdminSocket
from buri.control.api.verbs import Verbs
from buri.core.errors import BuriError, NotPermittedError, UnreachableError
from buri.testing.controlworld import World

URL = "https://vpn.example"
Script = Callable[["Desk"], Any]


class Desk:
    """An administrator's terminal, beside a server over fakes."""

    def __init__(self, world: World, state: Path) -> None:
        self.world = world
        self.state = state

    async def run(self, *words: str, code: int = 0) -> str:
        """Run `buri admin WORDS`; its output."""
        result = await self.invoke(*words)
        assert result.exit_code == code, (result.output, result.exception)
        return result.output

    async def refusal(self, *words: str) -> BuriError:
        result = await self.invoke(*words)
        assert isinstance(result.exception, BuriError), result.output
        return result.exception

    async def invoke(self, *words: str) -> Result:
        arguments = [f"--state-dir={self.state}", *words]
        return await asyncio.get_running_loop().run_in_executor(None, CliRunner().invoke, command, arguments)


def at_the_desk(state: Path, script: Script) -> World:
    async def scenario() -> World:
        world = World()
        state.mkdir(parents=True, exist_ok=True)
        socket = await AdminSocket.open(
            state, Verbs(world.admin, world.coordinator.policies, world.coordinator.people, URL)
        )
        try:
            await script(Desk(world, state))
        finally:
            await socket.close()
        assert not (state / "admin.sock").exists()
        return world

    return asyncio.run(scenario())


def test_users(tmp_path: Path) -> None:
    async def script(desk: Desk) -> None:
        assert "No users yet" in await desk.run("users", "list")
        assert await desk.run("users", "create", "alice", "--display-name=Alice A.") == "Created user alice (id 1).\n"
        assert (await desk.refusal("users", "create", "alice")).exit_code == 1
        assert (await desk.refusal("users", "create", "no spaces")).exit_code == 2
        assert "now called bob" in await desk.run("users", "rename", "alice", "bob")
        (row,) = json.loads(await desk.run("users", "list", "--json"))
        assert (row["id"], row["name"], row["display_name"], row["nodes"]) == (1, "bob", "Alice A.", 0)
        table = (await desk.run("users", "list")).splitlines()
        assert table[0].split() == ["ID", "NAME", "DISPLAY", "NAME", "ROLE", "NODES", "SIGN-IN", "CREATED"]
        await desk.world.machine().join(await desk.world.auth_key("bob"))
        assert "still has 1 node" in str(await desk.refusal("users", "delete", "bob"))
        await desk.run("nodes", "delete", "1")
        assert await desk.run("users", "delete", "1") == "Deleted user bob.\n"

    at_the_desk(tmp_path, script)


def test_a_person_is_invited_by_a_link_and_gets_a_new_password_by_another(tmp_path: Path) -> None:
    async def script(desk: Desk) -> None:
        await desk.run("users", "create", "alice")
        said = await desk.run("users", "invite", "bob@example.com", "--role=admin")
        assert said.startswith("For bob@example.com (admin), once, within 7 days:\n")
        token = said.strip().rpartition(f"{URL}/welcome/")[2]
        await desk.world.coordinator.people.accept(token, "ignored", "a fine password")
        rows = json.loads(await desk.run("users", "list", "--json"))
        assert [(row["name"], row["role"], row["can_sign_in"]) for row in rows] == [
            ("alice", "owner", False),
            ("bob@example.com", "admin", True),
        ]
        assert "can sign in already" in str(await desk.refusal("users", "invite", "bob@example.com"))
        assert "is no role" in str(await desk.refusal("users", "set-role", "bob@example.com", "king"))
        assert "member now" in await desk.run("users", "set-role", "bob@example.com", "member")
        link = json.loads(await desk.run("users", "set-password-link", "bob@example.com", "--json"))
        assert link["user"]["name"] == "bob@example.com"
        assert link["url"].startswith(f"{URL}/welcome/")
        assert (await desk.refusal("users", "set-password-link", "nobody")).exit_code == 1

    at_the_desk(tmp_path, script)


def test_preauthkeys(tmp_path: Path) -> None:
    async def script(desk: Desk) -> None:
        assert "--user or --tags" in str(await desk.refusal("preauthkeys", "create"))
        await desk.run("users", "create", "alice")
        key = (await desk.run("preauthkeys", "create", "--user=alice")).strip()
        assert re.fullmatch(r"buri-auth-[0-9a-f]{12}-[a-z2-7]{52}", key)
        made = json.loads(
            await desk.run(
                *("preauthkeys", "create", "--tags=tag:ci,tag:x", "--reusable", "--ephemeral", "--expiration=never"),
                "--json",
            )
        )
        assert (made["tags"], made["reusable"], made["ephemeral"], made["expiry"]) == (
            ["tag:ci", "tag:x"],
            True,
            True,
            "",
        )
        assert (await desk.world.machine().register(made["key"])).machine_authorized
        listing = await desk.run("preauthkeys", "list")
        assert key.rpartition("-")[2] not in listing
        assert "single use" in listing
        await desk.run("preauthkeys", "revoke", made["prefix"])
        assert (await desk.world.machine().register(made["key"])).error.startswith("auth key revoked")
        states = [row["state"] for row in json.loads(await desk.run("preauthkeys", "list", "--json"))]
        assert states == ["valid", "revoked"]
        assert "no such pre-auth key" in str(await desk.refusal("preauthkeys", "revoke", "99"))

    at_the_desk(tmp_path, script)


def test_nodes(tmp_path: Path) -> None:
    async def script(desk: Desk) -> None:
        assert "No nodes yet" in await desk.run("nodes", "list")
        machine = desk.world.machine("laptop")
        await machine.join(await desk.world.auth_key())
        await machine.open()
        (row,) = json.loads(await desk.run("nodes", "list", "--json", "--user=alice"))
        assert (row["name"], row["user"], row["online"], row["addresses"][0]) == ("laptop", "alice", True, "100.64.0.1")
        assert "laptop" in await desk.run("nodes", "list")
        assert "laptop.buri.internal" in await desk.run("nodes", "show", "100.64.0.1")
        assert json.loads(await desk.run("nodes", "show", "laptop", "--json")) == row
        assert "printer.buri.internal" in await desk.run("nodes", "rename", "laptop", "printer")
        assert "has ended" in await desk.run("nodes", "expire", "printer")
        assert "expired" in await desk.run("nodes", "list")
        assert "does not expire" in await desk.run("nodes", "expire", "printer", "--never")
        assert "will end at" in await desk.run("nodes", "expire", "printer", "--in=30d")
        await desk.run("nodes", "expire", "printer", "--in=30d", "--never", code=2)
        assert "Deleted node 1" in await desk.run("nodes", "delete", "printer.buri.internal")
        assert "no node 'printer'" in str(await desk.refusal("nodes", "show", "printer"))

    at_the_desk(tmp_path, script)


def test_a_keys_end_is_lifted_set_again_and_pushed_away(tmp_path: Path) -> None:
    async def script(desk: Desk) -> None:
        await desk.world.machine("laptop").join(await desk.world.auth_key())
        assert "does not expire" in await desk.run("nodes", "expiry", "disable", "laptop")
        first = await desk.run("nodes", "expiry", "enable", "laptop")
        assert "will end at" in first
        assert await desk.run("nodes", "expiry", "enable", "laptop") == first
        assert await desk.run("nodes", "expiry", "extend", "laptop", "90d") not in (first, "")
        assert "has ended" in await desk.run("nodes", "expire", "laptop")
        assert "will end at" in await desk.run("nodes", "expiry", "extend", "laptop", "90d")
        await desk.run("nodes", "expiry", "extend", "laptop", "0", code=2)
        assert "no node 'home'" in str(await desk.refusal("nodes", "expiry", "disable", "home"))

    at_the_desk(tmp_path, script)


def test_a_waiting_login_is_approved_or_rejected(tmp_path: Path) -> None:
    async def script(desk: Desk) -> None:
        await desk.run("users", "create", "alice")
        machine, other = desk.world.machine("laptop"), desk.world.machine("other")
        urls = [(await waiting.register()).auth_url for waiting in (machine, other)]
        codes = [url.rpartition("/")[2] for url in urls]
        pending = json.loads(await desk.run("nodes", "pending", "--json"))
        assert [row["code"] for row in pending] == codes
        assert "laptop joined as node 1 of alice" in await desk.run("nodes", "approve", codes[0], "--user=alice")
        await desk.run("nodes", "reject", codes[1])
        assert "No login waits" in await desk.run("nodes", "pending")
        assert "No login waits" in str(await desk.refusal("nodes", "approve", codes[0], "--user=alice"))
        assert (await machine.register(followup=urls[0])).machine_authorized

    at_the_desk(tmp_path, script)


def test_a_deep_state_directory_is_reached(tmp_path: Path) -> None:
    async def script(desk: Desk) -> None:
        await desk.run("users", "create", "alice")

    world = at_the_desk(tmp_path / ("d" * 80) / ("e" * 80), script)
    assert world.admin.snapshot.user_named("alice") is not None


def test_without_a_server_there_is_one_sentence(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, [f"--state-dir={tmp_path}", "users", "list"])
    assert isinstance(result.exception, UnreachableError)
    assert "No buri server answers" in str(result.exception)


def test_other_users_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(desk: Desk) -> None:
        monkeypatch.setattr(adminsocket, "_is_allowed", lambda _connection: False)
        error = await desk.refusal("users", "list")
        assert error.exit_code == NotPermittedError.exit_code
        assert "Only root" in str(error)

    at_the_desk(tmp_path, script)


def test_the_socket_is_its_owners_alone(tmp_path: Path) -> None:
    async def script(desk: Desk) -> None:
        assert (desk.state / "admin.sock").stat().st_mode & 0o777 == 0o600

    at_the_desk(tmp_path, script)
    assert os.umask(0o022) == 0o022


@pytest.mark.parametrize("line", [b"\n", b"nonsense\n", b'{"verb":"users.burn"}\n', b'{"verb":"users.create"}\n'])
def test_a_request_that_is_none_gets_an_answer(tmp_path: Path, line: bytes) -> None:
    async def script(desk: Desk) -> None:
        reader, writer = await asyncio.open_unix_connection(str(desk.state / "admin.sock"))
        writer.write(line)
        answer = json.loads(await reader.readline())
        assert "does not understand" in answer["error"]["message"]
        writer.close()

    at_the_desk(tmp_path, script)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90m", 5400), ("24h", 86400), ("1d12h", 129600), ("never", 0), ("0", 0), ("1.5h", 5400)]
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "h", "5 hours", "-5h"])
def test_what_is_no_duration(tmp_path: Path, text: str) -> None:
    result = CliRunner().invoke(command, [f"--state-dir={tmp_path}", "nodes", "expire", "x", f"--in={text}"])
    assert result.exit_code == 2
    assert "is not a duration" in result.output
