"""State directories that are full, read-only, damaged, newer or taken: one sentence each, the right exit code, no harm."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from buri.testing.lab import PRIVATE_SERVER, Host, Lab, wait_until
from buri.testing.ourpeers import ENVIRONMENT, PROGRAMS, Burid, BuriRelay, BuriServer
from buri.testing.realpeers import direct_line
from buri.testing.traffic import Talk

pytestmark = [pytest.mark.root, pytest.mark.engine, pytest.mark.slow]

CONFIG, SYSTEM, IN_USE = 2, 3, 5  # core.errors' exit codes
URL = f"http://{PRIVATE_SERVER}:8080"
HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""
SERVER = ("--listen=0.0.0.0:8080", f"--url={URL}")


def end_of(host: Host, program: str, *words: str) -> tuple[int, str]:
    """Run a program that is to end by itself: its exit code, and the one sentence that it ended with."""
    done = host.run(*PROGRAMS["burid" if program == "burid" else "buri"], *words, check=False, env=ENVIRONMENT)
    output = done.stdout + done.stderr
    assert "Traceback" not in output, output
    said = [line for line in output.splitlines() if line.startswith(f"{program}: ")]
    assert len(said) == 1, output
    return done.returncode, said[0]


def small_disk(host: Host, directory: Path, size: str) -> Path:
    directory.mkdir(exist_ok=True)
    host.run("mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(directory))
    return directory


def fill(host: Host, directory: Path) -> None:
    host.run("dd", "if=/dev/zero", f"of={directory}/fill", "bs=1k", "count=9000", check=False)


# ---- the node ---------------------------------------------------------------------------------------------------------


def test_a_node_whose_disk_goes_read_only_or_full_carries_on_and_starts_again(lab: Lab) -> None:
    server = BuriServer(lab.public_host("server", number=1, private=PRIVATE_SERVER))
    host = lab.home_host(lab.home("alice-home", server=server.host), "alice")
    state = small_disk(host, host.directory / "buri", "300k")
    alice, bob = Burid(host), Burid(lab.home_host(lab.home("bob-home", server=server.host), "bob"))
    key = server.auth_key()
    alice.up(URL, key)
    bob.up(URL, key)
    assert direct_line(alice.ping(bob.address()))
    for harm, mend in (
        (("mount", "-o", "remount,bind,ro", str(state)), ("mount", "-o", "remount,bind,rw", str(state))),
        (("dd", "if=/dev/zero", f"of={state}/fill", "bs=1k", "count=900"), ("rm", f"{state}/fill")),
    ):
        with Talk(alice.host, bob.host, bob.address(), 7001, patience_s=20) as talk:
            host.run(*harm, check=False)
            code, said = alice.code("set", "--hostname=other")
            assert (code, str(state) in said, "Traceback" in said) == (SYSTEM, True, False), said
            talk.goes_on()
            alice.process.kill()  # what it kept before is enough for another life
            alice.start()
            wait_until("Running", lambda: alice.status()["BackendState"] == "Running", timeout_s=30)
            assert alice.status()["Self"]["HostName"] == "alice"
            talk.goes_on()
            host.run(*mend)
            alice.cli("set", "--hostname=alice")
        assert not [line for line in alice.process.lines if "Traceback" in line or "please report" in line]


def test_of_a_node_s_files_the_state_is_guarded_and_the_netmap_may_be_anything(lab: Lab) -> None:
    server = BuriServer(lab.public_host("server", number=1, private=PRIVATE_SERVER))
    alice = Burid(lab.home_host(lab.home("alice-home", server=server.host), "alice"))
    alice.up(URL, server.auth_key())
    kept = alice.state / "burid.state"
    wait_until("the netmap to be kept", (alice.state / "netmap.json").exists)
    for junk in (b"", b"\xff\xfe", b"[" * 100_000, (alice.state / "netmap.json").read_bytes()[:100]):
        alice.process.stop()
        (alice.state / "netmap.json").write_bytes(junk)
        alice.start()
        wait_until("Running", lambda: alice.status()["BackendState"] == "Running", timeout_s=30)
    alice.process.stop()
    good = kept.read_bytes()
    words = (f"--statedir={alice.state}", f"--socket={alice.socket}")
    for junk, word in (
        (b"", "is damaged"),
        (b"\xff\xfe\xfd", "is damaged"),
        (b"[" * 100_000, "is damaged"),
        (good[:200], "is damaged"),
        (good.replace(b"privkey:", b"privkez:"), "is damaged"),
        (b'{"format": 9, "machine_key": ""}', "newer Buri"),
    ):
        kept.write_bytes(junk)
        code, said = end_of(alice.host, "burid", *words)
        assert (code, word in said, str(kept) in said) == (CONFIG, True, True), said
        assert kept.read_bytes() == junk, "what is damaged is for a person to judge"
    kept.write_bytes(good)
    alice.start()
    wait_until("Running", lambda: alice.status()["BackendState"] == "Running", timeout_s=30)


# ---- the server -------------------------------------------------------------------------------------------------------


def test_a_server_names_the_file_that_is_damaged_newer_or_held_and_touches_nothing(lab: Lab) -> None:
    server = BuriServer(lab.public_host("server", number=1, private=PRIVATE_SERVER))
    server.admin("users", "create", "alice")
    server.process.stop()
    good = {path: path.read_bytes() for path in server.state.iterdir() if path.is_file()}
    database = server.state / "server.db"
    newer = server.host.directory / "newer.db"
    newer.write_bytes(good[database])
    with sqlite3.connect(newer) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    half = good[database][:4096] + b"\xa5" * (len(good[database]) - 4096)
    for file, content, code, words in (
        ("server.db", b"this is no database, whatever it was before" * 200, CONFIG, "not an intact SQLite database"),
        ("server.db", half, CONFIG, "not an intact SQLite database"),
        ("server.db", newer.read_bytes(), CONFIG, "newer Buri"),
        ("noise.key", b"", CONFIG, "not a key file of a known version"),
        ("noise.key", b"buri-noise-key 1\nprivkey:00\n", CONFIG, "is damaged"),
        ("noise.key", b"buri-noise-key 2\nprivkey:" + b"11" * 32 + b"\n", CONFIG, "not a key file of a known version"),
        ("derp.key", b"\xff\xff", CONFIG, "not a key file of a known version"),
    ):
        (server.state / file).write_bytes(content)
        got, said = end_of(server.host, "buri server", "server", f"--state-dir={server.state}", *SERVER)
        assert (got, words in said, str(server.state / file) in said) == (code, True, True), said
        assert (server.state / file).read_bytes() == content
        for path, was in good.items():
            path.write_bytes(was)
        for left in ("server.db-wal", "server.db-shm"):
            (server.state / left).unlink(missing_ok=True)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    got, said = end_of(server.host, "buri server", "server", f"--state-dir={server.state}", *SERVER)
    assert (got, "held by another program" in said, str(database) in said) == (IN_USE, True, True), said
    holder.communicate()
    (server.state / "derp.crt").write_bytes(b"damaged")  # made anew: a certificate of our own is no loss but its pin
    server.start()
    assert "alice" in server.admin("users", "list")


# ---- the relay --------------------------------------------------------------------------------------------------------


def test_a_relay_names_what_keeps_it_from_starting(lab: Lab) -> None:
    host = lab.public_host("relay", number=3)
    relay = BuriRelay(host)
    other = host.directory / "other"

    def refused(state: Path, *flags: str) -> tuple[int, str]:
        return end_of(host, "buri relay", "relay", f"--state-dir={state}", f"--hostname={host.address}", *flags)

    code, said = refused(other, "--listen=0.0.0.0:443")
    assert (code, "0.0.0.0:443" in said) == (IN_USE, True), said
    code, said = refused(other, "--listen=0.0.0.0:444")
    assert (code, "3478" in said) == (IN_USE, True), said
    relay.process.stop()
    good = (relay.state / "derp.key").read_bytes()
    (relay.state / "derp.key").write_bytes(good[:30])
    code, said = refused(relay.state)
    assert (code, str(relay.state / "derp.key") in said) == (CONFIG, True), said
    (relay.state / "derp.key").write_bytes(good)
    full = small_disk(host, host.directory / "full", "64k")
    fill(host, full)
    code, said = refused(full)
    assert (code, str(full) in said, "No space left" in said) == (SYSTEM, True, True), said
    assert host.run("ls", "-A", str(full)).stdout.split() == ["fill"], "nothing is left half written"
    host.run("mount", "-o", "remount,bind,ro", str(full))
    code, said = refused(full)
    assert (code, str(full) in said, "Read-only" in said) == (SYSTEM, True, True), said
    file = host.directory / "file"
    file.write_text("")
    code, said = refused(file)
    assert (code, str(file) in said) == (SYSTEM, True), said
    relay.start()
