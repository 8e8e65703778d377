"""What keeps `burid` from running: one clear sentence each, the right exit code, nothing left behind."""

from __future__ import annotations

import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from buri.testing.lab import wait_until
from buri.testing.namespace import own_network
from buri.testing.ourpeers import ENVIRONMENT, PROGRAMS

pytestmark = [pytest.mark.root, pytest.mark.engine, pytest.mark.slow]


@pytest.fixture(autouse=True)
def network() -> Iterator[None]:
    with own_network():
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        yield


def burid(directory: Path, *flags: str, before: tuple[str, ...] = ()) -> tuple[int, str]:
    """Run `burid` to its end; its exit code and what it said."""
    words = [*before, *PROGRAMS["burid"], f"--statedir={directory}/state", f"--socket={directory}/s.sock", *flags]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, env={**ENVIRONMENT}, check=False)
    return done.returncode, done.stderr


@pytest.fixture
def running(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A `burid` that runs in this network, on TMP/first/s.sock and buri0."""
    first = tmp_path / "first"
    words = [*PROGRAMS["burid"], f"--statedir={first}/state", f"--socket={first}/s.sock"]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL, env={**ENVIRONMENT}) as process:
        wait_until("burid's socket", (first / "s.sock").exists)
        links = ["ip", "link", "show", "buri0"]
        wait_until("buri0", lambda: subprocess.run(links, capture_output=True, check=False).returncode == 0)
        yield process
        process.terminate()


def one_sentence(said: str) -> None:
    assert said.startswith("burid: ")
    assert len(said.strip().splitlines()) == 1
    assert "Traceback" not in said


def test_without_the_right_to_a_tun_device() -> None:
    with tempfile.TemporaryDirectory() as name:  # not pytest's, which no other user may enter
        directory = Path(name)
        directory.chmod(0o777)
        code, said = burid(directory, before=("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"))
        assert code == 4, said
        one_sentence(said)
        assert "root" in said
        assert not (directory / "s.sock").exists()
    assert "buri0" not in subprocess.run(["ip", "link"], capture_output=True, text=True, check=True).stdout


def test_userspace_networking_is_not_there_yet(tmp_path: Path) -> None:
    code, said = burid(tmp_path, "--tun=userspace-networking")
    assert code == 2
    one_sentence(said)
    assert "no userspace networking yet" in said


@pytest.mark.usefixtures("running")
def test_a_second_daemon_on_the_same_socket_or_interface(tmp_path: Path) -> None:
    code, said = burid(tmp_path / "first", "--tun=buri1")
    assert (code, "Another burid is running" in said) == (5, True), said
    one_sentence(said)
    code, said = burid(tmp_path / "second")
    assert (code, "buri0" in said) == (5, True), said
    one_sentence(said)
    assert not (tmp_path / "second" / "s.sock").exists()
    assert (tmp_path / "first" / "s.sock").exists()


def test_a_damaged_state_file_is_kept_and_named(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "burid.state").write_text("{")
    code, said = burid(tmp_path)
    assert code == 2
    one_sentence(said)
    assert "is damaged" in said
    assert (tmp_path / "state" / "burid.state").read_text() == "{"


def test_cleanup_takes_away_what_a_kill_left_and_nothing_that_lives(tmp_path: Path) -> None:
    subprocess.run(["ip", "rule", "add", "priority", "5287", "table", "5282"], check=True)
    words = [*PROGRAMS["burid"], "--cleanup"]
    done = subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert (done.returncode, done.stdout) == (0, "burid: removed 1 routing rule.\n")
    assert "5287" not in subprocess.run(["ip", "rule"], capture_output=True, text=True, check=True).stdout
    subprocess.run(["ip", "tuntap", "add", "dev", "buri0", "mode", "tun"], check=True)
    subprocess.run(["ip", "link", "set", "buri0", "up"], check=True)
    subprocess.run(["ip", "route", "add", "100.64.0.2/32", "dev", "buri0", "table", "5282"], check=True)
    words = [*PROGRAMS["burid"], "--cleanup"]
    done = subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 5
    one_sentence(done.stderr)


def test_a_port_that_is_taken_gives_the_next_free_one(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", 41641))
        words = [*PROGRAMS["burid"], f"--statedir={tmp_path}/state", f"--socket={tmp_path}/s.sock"]
        with subprocess.Popen(words, stderr=subprocess.DEVNULL, env={**ENVIRONMENT}) as process:

            def bound() -> str:
                return subprocess.run(["ss", "-lnu"], capture_output=True, text=True, check=True).stdout

            wait_until("the next port", lambda: "0.0.0.0:41642" in bound())
            process.terminate()
        assert process.returncode == 0
