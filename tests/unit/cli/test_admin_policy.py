"""`buri admin policy` against a server's admin socket."""

from __future__ import annotations

import asyncio
import json
import re
import stat
import tempfile
from pathlib import Path

import click
import pytest

from buri.cli.admin_policy import _host_and_port
from buri.core.errors import BuriError
from unit.cli.test_admin import Desk, at_the_desk

POLICY = """{
    // Alice reaches the web.
    "tagOwners": {"tag:web": ["alice@"]},
    "acls": [
        {"action": "accept", "src": ["alice@"], "dst": ["tag:web:80,443"]},
        {"action": "accept", "src": ["bob@"], "dst": ["tag:web:22"]},
    ],
    "tests": [{"src": "alice@", "accept": ["tag:web:80"], "deny": ["tag:web:22"]}],
}
"""


async def people(desk: Desk) -> None:
    for name in ("alice", "bob"):
        await desk.world.machine(name).join(await desk.world.auth_key(name))
    await desk.world.machine("web").join(await desk.world.auth_key("", tags=["tag:web"]))


def test_get_set_history(tmp_path: Path) -> None:
    async def script(desk: Desk) -> None:
        await people(desk)
        file = tmp_path / "policy.hujson"
        default = await desk.run("policy", "get")
        assert "every node reaches every other" in default
        file.write_text(POLICY)
        assert "1 test, 3 nodes" in await desk.run("policy", "check", str(file))
        assert await desk.run("policy", "set", str(file)) == "Policy 1 is in force.\n"
        assert await desk.run("policy", "get") == POLICY, "comments and all"
        shown = json.loads(await desk.run("policy", "get", "--json"))
        assert shown["version"] == 1
        file.write_text(POLICY.replace("443", "8443"))
        refusal = await desk.refusal("policy", "set", str(file), "--if-match=0000")
        assert "another by now" in str(refusal)
        assert refusal.exit_code == 1
        second = json.loads(await desk.run("policy", "set", str(file), f"--if-match={shown['etag']}", "--json"))
        assert second["etag"] != shown["etag"]
        assert await desk.run("policy", "get", "--version=1") == POLICY
        rows = json.loads(await desk.run("policy", "history", "--json"))
        assert [row["version"] for row in rows] == [1, 2]
        assert all(row["author"] for row in rows)
        assert "1  " in await desk.run("policy", "history")
        assert "not remembered" in str(await desk.refusal("policy", "get", "--version=9"))
        assert "All pass" in await desk.run("policy", "test")

    world = at_the_desk(tmp_path, script)
    assert [type(write).__name__ for write in world.journal.written].count("PutPolicy") == 2


def test_a_bad_policy_shows_every_fault_and_changes_nothing(tmp_path: Path) -> None:
    async def script(desk: Desk) -> None:
        await people(desk)
        file = tmp_path / "policy.hujson"
        file.write_text('{\n  "bogus": 1,\n  "acls": [{"action": "deny", "src": ["*"], "dst": ["*:*"]}],\n}')
        for verb in ("set", "check", "diff"):
            done = await desk.invoke("policy", verb, str(file))
            assert f"{file}:2:" in done.output
            assert f"{file}:3:" in done.output
            assert isinstance(done.exception, BuriError)
            assert done.exception.exit_code == 2
            assert "2 faults" in str(done.exception)
        file.write_text("{")
        assert f"{file}:1:2: " in (await desk.invoke("policy", "set", str(file))).output
        file.write_text(POLICY.replace('"accept": ["tag:web:80"]', '"accept": ["tag:web:81"]'))
        assert "to be accepted, but denied" in (await desk.invoke("policy", "set", str(file))).output
        file.write_bytes(b"\xff")
        assert "not UTF-8" in str(await desk.refusal("policy", "set", str(file)))
        assert "cannot be read" in str(await desk.refusal("policy", "set", str(tmp_path / "nowhere")))
        assert desk.world.coordinator.policies.current.id == 0

    at_the_desk(tmp_path, script)


def test_explain_names_the_rule_or_the_nearest(tmp_path: Path) -> None:
    async def script(desk: Desk) -> None:
        await people(desk)
        file = tmp_path / "policy.hujson"
        assert "Allowed by acls[0]" in await desk.run("policy", "explain", "alice", "bob:22")
        file.write_text(POLICY)
        await desk.run("policy", "set", str(file))
        told = await desk.run("policy", "explain", "alice", "web:443")
        assert told.splitlines() == [
            "Allowed by acls[0] at line 5.",
            '  5: {"action": "accept", "src": ["alice@"], "dst": ["tag:web:80,443"]},',
        ]
        told = await desk.run("policy", "explain", "alice", "web:22", code=1)
        assert "Denied. The nearest is acls[0] at line 5: it opens other ports." in told
        row = json.loads(await desk.run("policy", "explain", "bob", "web:80", "--json", code=1))
        assert not row["allowed"]
        assert row["nearest"]["line"] == 6
        address = desk.world.admin.node("web").ipv6
        assert "Allowed" in await desk.run("policy", "explain", "alice", f"[{address}]:80")
        assert "Denied" in await desk.run("policy", "explain", "alice", "10.9.9.9:80", code=1)
        assert "no protocol" in str(await desk.refusal("policy", "explain", "alice", "web:80", "--proto=carrier"))
        assert "no node 'nobody'" in str(await desk.refusal("policy", "explain", "alice", "nobody:80"))
        await desk.run("nodes", "expire", "web")
        assert "But: The key of web has expired" in await desk.run("policy", "explain", "alice", "web:80")

    at_the_desk(tmp_path, script)


def test_diff_shows_who_gains_and_loses(tmp_path: Path) -> None:
    async def script(desk: Desk) -> None:
        await people(desk)
        file = tmp_path / "policy.hujson"
        file.write_text(POLICY)
        await desk.run("policy", "set", str(file))
        assert "No node gains or loses" in await desk.run("policy", "diff", str(file))
        file.write_text(
            POLICY.replace("80,443", "80").replace('["bob@"], "dst": ["tag:web:22"]', '["*"], "dst": ["bob@:5"]')
        )
        rows = {
            (row["src"], row["dst"]): row for row in json.loads(await desk.run("policy", "diff", str(file), "--json"))
        }
        assert "443" in rows["alice", "web"]["lost"]
        assert "22" in rows["bob", "web"]["lost"]
        assert "5" in rows["web", "bob"]["gained"]
        assert "LOSES" in await desk.run("policy", "diff", str(file))

    at_the_desk(tmp_path, script)


def editor(path: Path, *lines: str) -> str:
    """An editor that does what the lines of shell say to its file, $1."""
    path.write_text("#!/bin/sh\n" + "\n".join(lines) + "\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_edit_puts_in_force_what_the_editor_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(desk: Desk) -> None:
        await people(desk)
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        monkeypatch.setenv("EDITOR", editor(tmp_path / "nothing", "true"))
        monkeypatch.delenv("VISUAL", raising=False)
        assert "Nothing changed" in await desk.run("policy", "edit", "--yes")
        monkeypatch.setenv("EDITOR", editor(tmp_path / "ed", 'sed -i s/:\\\\*/:22/ "$1"'))
        told = await desk.run("policy", "edit", "--yes")
        assert "LOSES" in told
        assert "Policy 1 is in force" in told
        assert ':22"' in await desk.run("policy", "get")
        monkeypatch.setenv("EDITOR", editor(tmp_path / "bad", 'echo "{" > "$1"'))
        done = await desk.invoke("policy", "edit", "--yes")
        assert "policy:2:1: " in done.output, "the fault is shown, and nobody is there to say yes"
        (kept,) = re.findall(r"kept in (\S+)\.", done.output)
        assert Path(kept).read_text() == "{\n"
        assert done.exit_code
        assert desk.world.coordinator.policies.current.id == 1

    at_the_desk(tmp_path, script)


def test_edit_overwrites_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(desk: Desk) -> None:
        other = tmp_path / "other"
        other.write_text("{}")
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        monkeypatch.delenv("VISUAL", raising=False)
        monkeypatch.setenv(
            "EDITOR",
            editor(
                tmp_path / "ed",
                'echo \'{"acls": []}\' > "$1"',
                f'mkfifo "{tmp_path}/held" && echo edited > "{tmp_path}/held"',
            ),
        )

        async def meanwhile() -> None:
            while not (tmp_path / "held").exists():
                await asyncio.sleep(0.01)
            await desk.run("policy", "set", str(other))
            await asyncio.get_running_loop().run_in_executor(None, (tmp_path / "held").read_text)

        beside = asyncio.ensure_future(meanwhile())
        done = await desk.invoke("policy", "edit", "--yes")
        await beside
        assert "another by now" in str(done.exception)
        (kept,) = re.findall(r"kept in (\S+)\.", done.output)
        assert json.loads(Path(kept).read_text()) == {"acls": []}
        assert await desk.run("policy", "get") == "{}\n"

    at_the_desk(tmp_path, script)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("web", ("web", 0)),
        ("web:22", ("web", 22)),
        ("web:*", ("web", 0)),
        ("100.64.0.1:80", ("100.64.0.1", 80)),
        ("fd7a::1", ("fd7a::1", 0)),
        ("[fd7a::1]:80", ("fd7a::1", 80)),
        ("[fd7a::1]", ("fd7a::1", 0)),
    ],
)
def test_a_destination_with_and_without_port(text: str, expected: tuple[str, int]) -> None:
    assert _host_and_port(text) == expected


@pytest.mark.parametrize("text", ["web:", "web:http", "web:70000", "[fd7a::1]:0"])
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(click.UsageError):
        _host_and_port(text)


def test_roles_and_tags(tmp_path: Path) -> None:
    async def script(desk: Desk) -> None:
        await people(desk)
        assert "bob is admin now" in await desk.run("users", "role", "bob", "admin")
        assert "no role" in str(await desk.refusal("users", "role", "bob", "king"))
        assert "only owner" in str(await desk.refusal("users", "role", "alice", "member"))
        assert "tag:db" in await desk.run("nodes", "tag", "bob", "tag:db", "tag:web")
        row = json.loads(await desk.run("nodes", "show", "bob", "--json"))
        assert (row["user"], row["tags"], row["expiry"]) == ("", ["tag:db", "tag:web"], "")
        assert "not a tag" in str(await desk.refusal("nodes", "tag", "bob", "db"))

    at_the_desk(tmp_path, script)
