"""An ordinary user has the demo and the namespace tests too: root is dropped, in earnest, before they are run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from buri.testing.lab import TUN, in_user_namespace
from buri.testing.ordinaryuser import Played

ROOT = Path(__file__).resolve().parents[2]
READABLE = (ROOT, Path(sys.prefix), Path(sys.base_prefix))

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(
        in_user_namespace(), reason="this is an ordinary user already: every other test here is the proof"
    ),
]


@pytest.fixture
def user(tmp_path_factory: pytest.TempPathFactory) -> Played:
    home = tmp_path_factory.mktemp("home")  # a short path: sockets live in it
    made = Played(home, READABLE)
    os.chown(home, made.uid, made.uid)
    return made


def run(user: Played, *words: str | Path, path: str = os.environ["PATH"]) -> subprocess.CompletedProcess[str]:
    """Run Python of this checkout as the user, to its end."""
    return subprocess.run(
        [*user.words(), "env", f"PATH={path}", sys.executable, *(str(word) for word in words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1"},
    )


def test_the_user_played_is_nobody_here(user: Played) -> None:
    ask = "import os, pathlib; print(os.getuid(), os.getgroups()); print(pathlib.Path('/proc/self/status').read_text())"
    said = run(user, "-c", ask).stdout
    assert said.startswith("54321 [54321]") or said.startswith("54321 []")
    assert "CapEff:\t0000000000000000" in said
    assert "CapBnd:\t0000000000000000" in said


@pytest.mark.engine
def test_the_demo_joins_two_nodes_and_they_ping_each_other_directly(user: Played) -> None:
    done = run(user, ROOT / "tools/demo.py", "--brief")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "direct" in done.stdout
    assert "pong from bob" in done.stdout
    assert os.stat(user.home).st_uid == user.uid


def test_without_a_tun_device_the_demo_says_so_in_one_sentence(user: Played) -> None:
    done = run(Played(user.home, READABLE, tun_mode=0o600), ROOT / "tools/demo.py", "--brief")
    assert done.returncode != 0
    assert done.stdout == ""
    (sentence,) = done.stderr.splitlines()
    assert f"`chmod 0666 {TUN}`" in sentence


def test_the_rings_that_need_namespaces_go_into_a_user_namespace(user: Played) -> None:
    said = run(user, ROOT / "tools/test.py", "--plan").stdout
    (line,) = [line for line in said.splitlines() if line.startswith("would run — netns:")]
    assert " unshare --user --map-root-user " in line


def test_with_neither_root_nor_a_user_namespace_one_sentence_says_what_is_left_out(user: Played) -> None:
    forbidden = user.home / "unshare"  # as Ubuntu's AppArmor or a container's seccomp forbids it
    forbidden.write_text("#!/bin/sh\necho 'unshare: unshare failed: Operation not permitted' >&2\nexit 1\n")
    forbidden.chmod(0o755)
    said = run(user, ROOT / "tools/test.py", "--plan", path=f"{user.home}:{os.environ['PATH']}").stdout
    assert "would run — netns" not in said
    assert (
        "left out — netns and interop: there is neither root nor a user namespace here "
        "(unshare: unshare failed: Operation not permitted)."
    ) in said.splitlines()
