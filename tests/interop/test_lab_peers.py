"""The lab's ground truth: Tailscale among itself gets direct in these homes, so what ours does not is ours to mend."""

from __future__ import annotations

import pytest

from buri.testing.lab import PRIVATE_SERVER, Lab
from buri.testing.realpeers import Tailscaled, TestControl, direct_line, start_derper

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.slow]


def test_two_tailscaled_behind_easy_nats_go_from_derp_to_direct(lab: Lab) -> None:
    server = lab.public_host("server", number=1, private=PRIVATE_SERVER)
    _, derp_map = start_derper(server)
    control = TestControl(server, PRIVATE_SERVER, derp_map)
    tokyo, osaka = lab.home("tokyo", server=server), lab.home("osaka", server=server)
    alice = Tailscaled(lab.home_host(tokyo, "alice"))
    bob = Tailscaled(lab.home_host(osaka, "bob"))
    for node in (alice, bob):
        node.up(control.url, "any-key")
    assert direct_line(alice.ping(bob.address()))
