"""A server that is told to stop while hundreds listen: it ends at once, and the next one takes all of them back."""

from __future__ import annotations

import signal
import sys

import pytest

from buri.testing.lab import PRIVATE_SERVER, Lab
from buri.testing.ourpeers import ENVIRONMENT, BuriServer

pytestmark = [pytest.mark.root, pytest.mark.engine, pytest.mark.slow]

CROWD = 300
STOP_S = 2.0  # systemd and people wait longer, nodes should not


def test_sigterm_with_300_streams_ends_within_two_seconds_and_all_come_back(lab: Lab) -> None:
    server = BuriServer(lab.public_host("server", number=1, private=PRIVATE_SERVER))
    key = server.host.directory / "key"
    key.write_text(server.auth_key())
    words = [PRIVATE_SERVER, "8080", str(key), str(CROWD)]
    crowd = server.host.start("crowd", sys.executable, "-m", "buri.testing.crowd", *words, env=ENVIRONMENT)
    everyone = f"all {CROWD} have their map"
    crowd.expect(everyone, timeout_s=90)
    before = {node["node_key"]: node["addresses"] for node in server.nodes()}
    for stop in (signal.SIGTERM, signal.SIGINT):
        seen = len(crowd.lines)
        server.process.popen.send_signal(stop)
        assert server.process.popen.wait(STOP_S) == 0, server.process.lines[-10:]
        assert not [line for line in server.process.lines if "Traceback" in line or " ERROR " in line]
        server.start()
        crowd.expect(everyone, timeout_s=90, start=seen)
    assert {node["node_key"]: node["addresses"] for node in server.nodes()} == before
