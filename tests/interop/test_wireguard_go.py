"""The engine and WireGuard's own userspace implementation on a direct path: both ways, every byte checked."""

from __future__ import annotations

import pytest

from buri.testing.enginelab import ALL_OFF, counters, two_sides
from buri.testing.lab import Lab, wait_until
from buri.testing.traffic import send_checked, start_sink
from buri.testing.wireguardgo import start_wireguard_go

pytestmark = [pytest.mark.root, pytest.mark.engine, pytest.mark.interop, pytest.mark.slow]


@pytest.mark.parametrize("offloads", [{}, ALL_OFF], ids=["offloads on", "offloads off"])
@pytest.mark.parametrize("ours_begins", [True, False], ids=["ours begins", "theirs begins"])
def test_wireguard_go_and_the_engine_carry_every_byte(lab: Lab, ours_begins: bool, offloads: dict[str, bool]) -> None:
    ours, theirs = two_sides(lab)
    start_wireguard_go(theirs, ours)
    engine = ours.start(ours.config(theirs, offloads=offloads))
    begins, answers = (ours, theirs) if ours_begins else (theirs, ours)
    begins.host.run("ping", "-c2", "-i0.2", "-W3", answers.ipv4)
    engine.expect("HandshakeDone")
    for here, there, address in ((ours, theirs, theirs.ipv4), (theirs, ours, ours.ipv6)):
        start_sink(there.host, address, 7000)
        send_checked(here.host, address, 7000, 20_000_000)
    seen = counters(engine)
    assert seen["handshakes_done"] >= 1
    assert not [name for name in seen if name.startswith("drop_in_") and not name.startswith("drop_in_filter")], seen


def test_a_restarted_wireguard_go_is_met_again(lab: Lab) -> None:
    ours, theirs = two_sides(lab)
    start_wireguard_go(theirs, ours)
    engine = ours.start(ours.config(theirs))
    ours.host.run("ping", "-c1", "-W3", theirs.ipv4)
    theirs.host.processes[-1].kill()
    theirs.host.run("rm", "-f", "/var/run/wireguard/wg0.sock")
    start_wireguard_go(theirs, ours)
    wait_until(
        "an answer to a ping by the new process",
        lambda: theirs.host.run("ping", "-c1", "-W1", ours.ipv4, check=False).returncode == 0,
    )
    assert counters(engine)["handshakes_done"] >= 1
