"""`buri server` where it cannot start: one sentence, the right exit code, and nothing of the old state touched."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import pytest

from buri.control.config import ServerFlags, resolve
from buri.control.coordinator import Coordinator
from buri.control.settings import Settings
from buri.control.store.lock import StateLock
from buri.relay.identity import load_or_make_certificate
from buri.roles.server import NOISE_KEY_FILE, OWNER_LINK_FILE, _tell_owner_link, main
from buri.testing.controlworld import derp_map

REGION = {"RegionID": 900, "RegionCode": "lab", "Nodes": [{"Name": "a", "RegionID": 900, "HostName": "relay.example"}]}


def run(directory: Path, port: int = 8080) -> int:
    relays = directory / "relays.json"
    relays.write_text(json.dumps({"Regions": {"900": REGION}}))
    return main(
        {
            "state_dir": str(directory / "state"),
            "listen": f"127.0.0.1:{port}",
            "no_relay": True,
            "derp_map": str(relays),
        }
    )


def test_a_port_in_use_is_one_sentence_and_exit_code_5(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run(tmp_path, port) == 5
    assert f"127.0.0.1:{port} is taken by another program" in capsys.readouterr().err
    key = tmp_path / "state" / NOISE_KEY_FILE
    assert key.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


def test_a_second_server_on_a_state_directory_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "state"
    lock = StateLock(state)
    load_or_make_certificate(state, ["192.0.2.1"])
    before = {path.name: path.read_bytes() for path in state.iterdir()}
    flags = {"state_dir": str(state), "listen": "127.0.0.1:8080", "url": "http://127.0.0.1:8080"}
    assert main(flags) == 5
    lock.close()
    assert "Another buri server uses the state directory" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in state.iterdir()} == before


@pytest.mark.parametrize(
    "kept", [b"", b"\xff\xfe", b"buri-noise-key 2\nx\n", b"buri-noise-key 1\nprivkey:00\n", b"buri-noise-key 1\n"]
)
def test_a_damaged_noise_key_is_said_and_never_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kept: bytes
) -> None:
    key = tmp_path / "state" / NOISE_KEY_FILE
    key.parent.mkdir(mode=0o700)
    key.write_bytes(kept)
    assert run(tmp_path) == 2
    assert NOISE_KEY_FILE in capsys.readouterr().err
    assert key.read_bytes() == kept


def test_the_owners_link_is_in_a_file_of_its_own_until_an_owner_can_sign_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = resolve(ServerFlags(state_dir=str(tmp_path), url="http://127.0.0.1:8080"), {})

    async def start(*, claim: bool) -> str:
        coordinator = await Coordinator.open(tmp_path, Settings(url=config.url), derp_map(900))
        try:
            await _tell_owner_link(config, coordinator)
            if not (tmp_path / OWNER_LINK_FILE).exists():
                return ""
            link = (tmp_path / OWNER_LINK_FILE).read_text().strip()
            if claim:
                await coordinator.people.accept(link.rpartition("/")[2], "alice", "many words in a row")
            return link
        finally:
            await coordinator.close()

    first = asyncio.run(start(claim=False))
    assert first.startswith("http://127.0.0.1:8080/welcome/")
    assert (tmp_path / OWNER_LINK_FILE).stat().st_mode & 0o777 == 0o600
    assert asyncio.run(start(claim=True)) == first  # a restart makes no second link
    assert asyncio.run(start(claim=False)) == ""
    said = capsys.readouterr().out
    assert str(tmp_path / OWNER_LINK_FILE) in said
    assert first.rpartition("/")[2] not in said  # no terminal: a log may keep it
