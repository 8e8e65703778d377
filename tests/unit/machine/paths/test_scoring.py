from __future__ import annotations

import pytest

from buri.core.addresses import AddrPort
from buri.machine.paths.scoring import PathQuality, is_better

PUBLIC, OTHER = "198.51.100.1:1", "203.0.113.9:1"


@pytest.mark.parametrize(
    ("challenger", "incumbent", "better"),
    [
        ((PUBLIC, 10), (OTHER, 20), True),
        ((PUBLIC, 20), (OTHER, 10), False),
        ((PUBLIC, 10), (OTHER, 10), False),
        ((PUBLIC, 9.9), (OTHER, 10), False),  # one percent is jitter
        ((PUBLIC, 9.7), (OTHER, 10), True),
        (("192.168.1.2:1", 10), (PUBLIC, 10), True),
        (("192.168.1.2:1", 12), (PUBLIC, 10), True),  # 20 points outweigh 16 percent
        (("192.168.1.2:1", 15), (PUBLIC, 10), False),
        ((PUBLIC, 9), ("192.168.1.2:1", 10), False),
        (("[2001:db8::1]:1", 10), (PUBLIC, 10), True),
        (("[fd00::1]:1", 10), ("192.168.1.2:1", 10), True),
        (("127.0.0.1:1", 10), ("169.254.1.1:1", 10), True),
        (("169.254.1.1:1", 10), ("10.0.0.1:1", 10), True),
        (("100.64.0.1:1", 10), (PUBLIC, 10), False),  # shared address space is not "private" to Go
    ],
)
def test_points_decide_as_upstreams_do(
    challenger: tuple[str, float], incumbent: tuple[str, float], better: bool
) -> None:
    assert is_better(quality(*challenger), quality(*incumbent)) is better


def test_an_address_is_never_better_than_itself() -> None:
    assert not is_better(quality(PUBLIC, 1), quality(PUBLIC, 100))


def quality(address: str, latency_ms: float) -> PathQuality:
    return PathQuality(AddrPort.parse(address), latency_ms / 1000)
