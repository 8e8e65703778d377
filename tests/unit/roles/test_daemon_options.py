"""burid's command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from buri.core.errors import ConfigError, InUseError
from buri.roles.daemon import claim_socket, main, parse


def test_the_defaults() -> None:
    options = parse([])
    assert options.state == Path("/var/lib/buri/burid.state")
    assert options.socket == Path("/run/buri/burid.sock")
    assert (options.interface, options.port) == ("buri0", 41641)


def test_the_port_comes_from_the_flag_then_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "5000")
    assert parse([]).port == 5000
    assert parse(["--port=0"]).port == 0


def test_state_in_memory_and_state_in_a_file_of_its_own() -> None:
    assert parse(["--state=mem:"]).state is None
    assert parse(["--statedir=/a", "--state=/b/c"]).state == Path("/b/c")
    assert parse(["--statedir=/a"]).state == Path("/a/burid.state")


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--tun=userspace-networking", "no userspace networking yet"),
        ("--tun=much-too-long-a-name", "not a name for an interface"),
        ("--port=99999", "not a port"),
        (f"--port={'9' * 5000}", "not a port"),
        ("--port=²", "not a port"),
        ("--port=many", "not a port"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_sentence(
    flag: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match=words):
        parse([flag])
    assert main([flag]) == 2
    assert words in capsys.readouterr().err


def test_a_second_daemon_on_a_socket_is_refused_and_a_dead_ones_socket_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "run" / "burid.sock"
    first = claim_socket(path)
    with pytest.raises(InUseError, match="Another burid"):
        claim_socket(path)
    first.close()
    assert path.exists()
    claim_socket(path).close()
