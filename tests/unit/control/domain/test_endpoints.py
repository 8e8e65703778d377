"""Endpoints that nodes report."""

from __future__ import annotations

from buri.control.domain.endpoints import MAX_ENDPOINTS, accept


def test_usable_endpoints_stay_in_their_order() -> None:
    reported = ["192.168.1.7:41641", "[2001:db8::1]:41641", "203.0.113.9:1"]
    assert [str(endpoint) for endpoint in accept(reported)] == reported


def test_what_no_peer_can_use_is_dropped() -> None:
    reported = ["[fe80::1%eth0]:1", "[fe80::1]:1", "169.254.1.1:1", "1.2.3.4:0", "0.0.0.0:5", "224.0.0.1:5", "nonsense"]
    assert accept(reported) == ()
    assert accept(None) == ()


def test_the_list_is_bounded_and_without_doubles() -> None:
    assert len(accept(["1.2.3.4:5", "1.2.3.4:5"])) == 1
    assert len(accept([f"1.2.3.4:{port}" for port in range(1, 200)])) == MAX_ENDPOINTS
