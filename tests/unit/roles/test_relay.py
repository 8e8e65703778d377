"""`buri relay` from start to signal, with a front door that only remembers."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from buri.core.addresses import AddrPort
from buri.core.keys import NodePublic
from buri.engine.frontport import Certificate, FrontConfig, FrontStats
from buri.relay.config import RelayFlags, resolve
from buri.relay.identity import make_self_signed
from buri.relay.station import RelayStation
from buri.roles.relay import main, serve


class RememberingDoor:
    def __init__(self, config: FrontConfig) -> None:
        self.config = config
        self.certificates = [config.certificate]
        self.open_to_all = False
        self.closed = False
        self.changed = asyncio.Event()

    def listening(self) -> tuple[AddrPort, ...]:
        return tuple(AddrPort(address.address, address.port or 40000) for address in self.config.listen)

    def stun_listening(self) -> tuple[AddrPort, ...]:
        return self.config.stun

    def set_certificate(self, certificate: Certificate) -> None:
        self.certificates.append(certificate)
        self.changed.set()

    def admit_all(self) -> None:
        self.open_to_all = True
        self.changed.set()

    def admit(self, keys: Sequence[NodePublic]) -> None:
        raise AssertionError("a relay of its own keeps no list")

    def stats(self) -> FrontStats:
        return FrontStats({}, ())

    def close(self) -> None:
        self.closed = True


async def play(station: RelayStation, *signals: signal.Signals) -> RememberingDoor:
    """Serve until SIGTERM, sending `signals` before; each is waited for until the door hears of it."""
    doors: list[RememberingDoor] = []
    opened = asyncio.Event()

    def open_door(config: FrontConfig) -> RememberingDoor:
        doors.append(RememberingDoor(config))
        opened.set()
        return doors[0]

    task = asyncio.create_task(serve(station, open_door))
    await opened.wait()
    await doors[0].changed.wait()
    for number in signals:
        doors[0].changed.clear()
        signal.raise_signal(number)
        await doors[0].changed.wait()
    signal.raise_signal(signal.SIGTERM)
    await task
    return doors[0]


def test_it_admits_everyone_says_so_and_ends_at_sigterm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    station = RelayStation.prepare(resolve(RelayFlags(state_dir=str(tmp_path), listen="127.0.0.1:0"), {}))
    door = asyncio.run(play(station))
    assert door.open_to_all
    assert door.closed
    said = capsys.readouterr().out
    assert "Listening on 127.0.0.1:40000 (relay" in said
    assert "Listening on 127.0.0.1:3479 (STUN" in said
    assert "for everyone who finds it" in said
    printed = json.loads(said[said.index("{") :])
    assert printed == json.loads((tmp_path / "derp-map.json").read_text())
    assert printed["Regions"]["900"]["Nodes"][0]["DERPPort"] == 40000


def test_sighup_gives_new_connections_the_renewed_certificate(tmp_path: Path) -> None:
    chain_file, key_file = tmp_path / "chain.pem", tmp_path / "key.pem"

    def renew() -> bytes:
        chain, key = make_self_signed(["relay.example"], authority=True)
        chain_file.write_bytes(chain)
        key_file.write_bytes(key)
        return chain

    first = renew()
    flags = RelayFlags(
        state_dir=str(tmp_path), hostname="relay.example", tls_cert=str(chain_file), tls_key=str(key_file)
    )
    station = RelayStation.prepare(resolve(flags, {}))
    second = renew()
    door = asyncio.run(play(station, signal.SIGHUP))
    assert [certificate.chain_pem for certificate in door.certificates if certificate] == [first, second]


def test_a_wrong_flag_is_one_sentence_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main({"listen": "nowhere"}) == 2
    assert capsys.readouterr().err.startswith("buri relay: --listen takes ADDRESS:PORT")
