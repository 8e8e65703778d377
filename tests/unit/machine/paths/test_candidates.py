from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from buri.core.addresses import AddrPort
from buri.machine.paths.candidates import Candidates, usable
from buri.machine.paths.limits import MAX_CANDIDATES

A, B, C = (AddrPort.parse(f"198.51.100.{n}:41641") for n in (1, 2, 3))


def test_a_newer_netmap_replaces_the_named_addresses() -> None:
    candidates = Candidates()
    candidates.name([A, B], None)
    fresh = candidates.name([B, C], None)

    assert [candidate.address for candidate in candidates] == [B, C]
    assert [candidate.address for candidate in fresh] == [C]


def test_a_newer_call_me_maybe_drops_what_the_last_one_listed() -> None:
    candidates = Candidates()
    candidates.name([A], None)
    candidates.call([A, B], None)
    called = candidates.call([C], None)

    assert [candidate.address for candidate in candidates] == [A, C]
    assert [candidate.address for candidate in called] == [C]


def test_the_address_in_use_and_a_heard_one_outlive_the_netmap() -> None:
    candidates = Candidates()
    candidates.name([A], None)
    candidates.hear(B, 1.0, None)
    candidates.name([], A)

    assert [candidate.address for candidate in candidates] == [A, B]


def test_a_flood_of_sources_is_bounded_and_spares_named_ones_and_the_one_in_use() -> None:
    candidates = Candidates()
    candidates.name([A], None)
    candidates.hear(B, 0.5, B)
    for number in range(5000):
        candidates.hear(AddrPort(IPv4Address("203.0.113.1"), 1024 + number), 1.0 + number, B)

    assert len(candidates) == MAX_CANDIDATES
    assert candidates.get(A) is not None
    assert candidates.get(B) is not None
    assert candidates.get(AddrPort(IPv4Address("203.0.113.1"), 1024 + 4999)) is not None
    assert candidates.get(AddrPort(IPv4Address("203.0.113.1"), 1024)) is None


def test_a_list_longer_than_the_bound_is_cut() -> None:
    candidates = Candidates()
    candidates.name([AddrPort(IPv4Address("203.0.113.1"), 1 + n) for n in range(1000)], None)

    assert len(candidates) == MAX_CANDIDATES


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("198.51.100.1:1", True),
        ("192.168.1.1:1", True),
        ("[2001:db8::1]:1", True),
        ("127.0.0.1:1", True),
        ("198.51.100.1:0", False),
        ("100.64.0.1:1", False),  # a path to a tailnet address would go through itself
        ("[fd7a:115c:a1e0::1]:1", False),
        ("[fd7a:115c:a1e0:b1a::1]:1", False),
        ("0.0.0.0:1", False),
        ("224.0.0.1:1", False),
        ("[ff02::1]:1", False),
    ],
)
def test_addresses_inside_the_tailnet_groups_and_nowhere_are_no_candidates(text: str, good: bool) -> None:
    assert usable(AddrPort.parse(text)) is good


def test_a_ping_back_is_owed_once_for_each_of_our_pings() -> None:
    candidates = Candidates()
    candidate = candidates.hear(A, 10.0, None)
    assert candidate is not None
    candidate.pinged_at = 11.0

    assert candidate.may_be_pinged_back(11.1)
    candidates.hear(A, 11.1, None)
    candidate.pinged_at = 11.1
    assert not candidate.may_be_pinged_back(11.2)
    assert candidate.may_be_pinged_back(16.1)
