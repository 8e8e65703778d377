"""`tailscale debug derp` looks at our relay from a real node."""

from __future__ import annotations

import json

import pytest

from buri.testing.lab import PRIVATE_SERVER, Lab
from buri.testing.ourpeers import BuriServer
from buri.testing.realpeers import Tailscaled

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.engine, pytest.mark.slow]


def test_tailscale_debug_derp_finds_nothing_wrong_but_the_missing_ipv6(lab: Lab) -> None:
    host = lab.public_host("server", number=1, private=PRIVATE_SERVER)
    server = BuriServer(host)
    node = Tailscaled(lab.home_host(lab.home("tokyo", server=host), "alice"))
    node.up(server.url, server.auth_key())
    report = json.loads(node.cli("debug", "derp", "999"))
    said = "\n".join(report["Info"])
    assert "Successfully established a DERP connection" in said
    assert said.count("IPv4 STUN response") == 2, "both ports answer"
    # This lab's relay has no IPv6 address, which the tool counts as an error whatever the DERP map says of it.
    assert [line for line in report["Errors"] or [] if "over IPv6" not in line] == []
