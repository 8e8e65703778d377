"""Which addresses nodes get."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buri.control.domain.addresses import CAPACITY, SERVICES, allocate, ipv4_of, ipv6_of
from buri.core.addresses import CGNAT, CHROME_OS, SERVICE_IPV6, TAILNET_IPV6
from buri.core.errors import StateError


def nobody(_address: str) -> bool:
    return False


def test_the_first_node_gets_the_first_addresses() -> None:
    assert allocate(0, nobody) == ("100.64.0.1", "fd7a:115c:a1e0::1:0", 1)


@given(st.integers(0, CAPACITY - 1))
def test_no_reserved_address_is_given(number: int) -> None:
    address = ipv4_of(number)
    assert address in CGNAT
    assert address not in SERVICES
    assert address not in CHROME_OS
    assert address not in (CGNAT.network_address, CGNAT.broadcast_address)
    assert ipv6_of(number) in TAILNET_IPV6
    assert ipv6_of(number) != SERVICE_IPV6


@given(st.integers(0, CAPACITY - 2))
def test_every_number_has_an_address_of_its_own(number: int) -> None:
    assert ipv4_of(number) < ipv4_of(number + 1)
    assert ipv6_of(number) < ipv6_of(number + 1)


def test_the_reserved_parts_are_stepped_over() -> None:
    before = int(IPv4Address("100.100.99.255")) - int(IPv4Address("100.64.0.1"))
    assert ipv4_of(before) == IPv4Address("100.100.99.255")
    assert ipv4_of(before + 1) == IPv4Address("100.100.101.0")
    assert ipv4_of(CAPACITY - 1) == IPv4Address("100.127.255.254")


def test_when_all_were_given_those_in_use_are_passed_over() -> None:
    ipv4, ipv6, after = allocate(CAPACITY, {"100.64.0.1", "100.64.0.2"}.__contains__)
    assert ipv4 == "100.64.0.3"
    assert IPv6Address(ipv6) == ipv6_of(CAPACITY + 2)
    assert after == CAPACITY + 3


def test_a_full_tailnet_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("buri.control.domain.addresses.CAPACITY", 4)
    with pytest.raises(StateError, match="in use"):
        allocate(4, lambda _address: True)
