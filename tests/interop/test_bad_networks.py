"""Buri beside and towards real `tailscaled` where networks lose packets or carry short ones only.

The figures are printed (`pytest -s`), those of two `tailscaled` beside ours; only ours are judged.
"""

from __future__ import annotations

import time

import pytest

from buri.testing.badnetwork import lose, narrow
from buri.testing.lab import Lab
from buri.testing.ourpeers import Burid
from buri.testing.realpeers import Tailscaled
from buri.testing.talkingpair import TalkingPair

pytestmark = [pytest.mark.root, pytest.mark.engine, pytest.mark.interop, pytest.mark.slow]

Kinds = tuple[type[Burid | Tailscaled], type[Burid | Tailscaled]]

PAIRS: dict[str, Kinds] = {
    "buri to buri": (Burid, Burid),
    "buri to tailscaled": (Burid, Tailscaled),
    "tailscaled to buri": (Tailscaled, Burid),
    "tailscaled to tailscaled": (Tailscaled, Tailscaled),
}
mixed = pytest.mark.parametrize("who", PAIRS)
LEAST = 30.0  # Mbit/s: half of the link


@mixed
def test_a_network_that_loses_two_percent(lab: Lab, who: str) -> None:
    pair = TalkingPair(lab, PAIRS[who])
    for home in pair.homes:
        lose(home, 1)
    rate = pair.stream.measure(8)
    print(f"\n{who}, 2 % loss: {rate:.1f} Mbit/s")
    pair.stream.expect_flow()
    assert pair.is_direct() or Tailscaled in PAIRS[who]


@pytest.mark.parametrize("icmp", [True, False], ids=["told by ICMP", "without a word"])
@mixed
def test_a_path_that_drops_to_mtu_1300(lab: Lab, who: str, *, icmp: bool) -> None:
    kinds = PAIRS[who]
    pair = TalkingPair(lab, kinds)
    narrow(lab, pair.homes, 1300, icmp=icmp)
    since = time.time()
    word = "with" if icmp else "without"
    if kinds == (Tailscaled, Tailscaled):
        print(f"\n{who}, MTU 1300 {word} ICMP: {pair.stream.measure(16):.2f} Mbit/s")
        return
    print(pair.back(f"{who}, MTU 1300 {word} ICMP", since))
    pair.stream.expect_rate(LEAST)
    fast_s = time.time() - since
    print(f"{who}, MTU 1300 {word} ICMP: {pair.stream.measure(8):.1f} Mbit/s, above {LEAST:g} after {fast_s:.1f} s")
