"""A relay's flags, variables and defaults."""

from __future__ import annotations

from pathlib import Path

import pytest

from buri.core.addresses import AddrPort
from buri.core.errors import ConfigError
from buri.relay.config import RelayFlags, resolve


def test_with_nothing_said_it_listens_on_the_usual_ports() -> None:
    config = resolve(RelayFlags(), {})
    assert config.state_dir == Path("/var/lib/buri-relay")
    assert config.listen == AddrPort.parse("0.0.0.0:443")
    assert config.stun == AddrPort.parse("0.0.0.0:3478")
    assert (config.hostname, config.tls_files, config.region, config.metrics) == (None, None, 900, None)


def test_a_flag_wins_over_its_variable() -> None:
    config = resolve(RelayFlags(listen="[::1]:8443"), {"BURI_RELAY_LISTEN": "0.0.0.0:1", "BURI_RELAY_REGION": "901"})
    assert config.listen == AddrPort.parse("[::1]:8443")
    assert config.region == 901


def test_stun_follows_the_listener_and_can_be_switched_off() -> None:
    assert resolve(RelayFlags(listen="[::1]:8443"), {}).stun == AddrPort.parse("[::1]:3478")
    assert resolve(RelayFlags(stun="none"), {}).stun is None
    assert resolve(RelayFlags(stun=":4000"), {}).stun == AddrPort.parse("0.0.0.0:4000")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (RelayFlags(listen="relay"), r"--listen takes ADDRESS:PORT \(such as 0.0.0.0:443\), not 'relay'"),
        (RelayFlags(stun="0.0.0.0:65535"), "the next one answers too"),
        (RelayFlags(tls_cert="chain.pem", hostname="relay.example"), "go together"),
        (RelayFlags(tls_cert="chain.pem", tls_key="key.pem"), "--tls-cert needs --hostname"),
        (RelayFlags(region="999"), "--region takes a number from 900 to 998"),
        (RelayFlags(region="²"), "--region takes a number"),
        (RelayFlags(metrics="localhost"), "--metrics takes ADDRESS:PORT"),
    ],
)
def test_what_cannot_be_is_named(flags: RelayFlags, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        resolve(flags, {})


def test_a_variable_that_nobody_knows_is_a_slip_to_name() -> None:
    with pytest.raises(ConfigError, match="BURI_RELAY_PORT is not known"):
        resolve(RelayFlags(), {"BURI_RELAY_PORT": "1"})
