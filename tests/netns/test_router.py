"""The Linux router in a network namespace of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from buri.core.errors import SystemFault
from buri.netio.netlink import Netlink, Rule
from buri.node.router import RouterConfig
from buri.node.router.linux import MARK, MARK_MASK, ROUTES_AT_ONCE, RULES, TABLE, LinuxRouter, in_use, remove_rules
from buri.testing.namespace import own_network

pytestmark = pytest.mark.root

CONFIG = RouterConfig(
    addresses=(ip_address("100.64.0.1"), ip_address("fd7a:115c:a1e0::1")),
    routes=(ip_network("100.64.0.2/32"), ip_network("fd7a:115c:a1e0::2/128")),
)
FIRSTS = {"100.64.0.1", "fd7a:115c:a1e0::1", "100.64.0.2", "fd7a:115c:a1e0::2"}


def ip(*words: str) -> Any:
    done = subprocess.run(["ip", "-json", *words], capture_output=True, text=True, check=False)
    return json.loads(done.stdout or "[]")


@pytest.fixture
def interface() -> Iterator[str]:
    """A TUN-like interface in a fresh namespace, which the test's own thread stands in while it runs."""
    with own_network():
        subprocess.run(["ip", "tuntap", "add", "dev", "buri7", "mode", "tun"], check=True)
        yield "buri7"


def addresses(interface: str) -> set[str]:
    (link,) = ip("address", "show", "dev", interface)
    return {a["local"] for a in link["addr_info"] if a["scope"] == "global"}


def destinations() -> set[str]:
    return {route["dst"] for family in ("-4", "-6") for route in ip(family, "route", "show", "table", str(TABLE))}


def rules(family: str) -> list[int]:
    return [rule["priority"] for rule in ip(family, "rule", "show") if 5280 <= rule["priority"] < 5290]


def test_apply_makes_the_system_so_and_again_changes_nothing(interface: str) -> None:
    router = LinuxRouter(interface)
    for _ in range(2):
        router.apply(CONFIG)
        assert addresses(interface) == {"100.64.0.1", "fd7a:115c:a1e0::1"}
        assert destinations() == FIRSTS
        assert rules("-4") == rules("-6") == [5281, 5283, 5285, 5287]
    (link,) = ip("link", "show", "dev", interface)
    assert link["mtu"] == 1280
    assert "UP" in link["flags"]
    router.close()


def test_apply_changes_what_differs_and_mends_what_others_took(interface: str) -> None:
    router = LinuxRouter(interface)
    router.apply(CONFIG)
    subprocess.run(["ip", "rule", "del", "priority", "5287"], check=True)
    router.apply(RouterConfig(addresses=(ip_address("100.64.0.9"),), routes=(ip_network("10.0.0.0/8"),)))
    assert addresses(interface) == {"100.64.0.9"}
    assert destinations() == {"100.64.0.9", "10.0.0.0/8"}
    assert rules("-4") == [5281, 5283, 5285, 5287]
    router.close()


def test_many_routes_come_and_go_in_several_calls(interface: str) -> None:
    router = LinuxRouter(interface)
    many = tuple(ip_network((0x64460000 + number, 32)) for number in range(2 * ROUTES_AT_ONCE))
    big = RouterConfig(addresses=CONFIG.addresses, routes=many)
    calls = [router.apply(big) for _ in range(3)]
    assert calls == [False, False, True]
    assert destinations() == {"100.64.0.1", "fd7a:115c:a1e0::1", *(str(route.network_address) for route in many)}
    assert router.apply(big)
    while not router.apply(CONFIG):
        assert destinations() > FIRSTS
    assert destinations() == FIRSTS
    router.close()


def test_remove_leaves_nothing_and_may_be_called_twice(interface: str) -> None:
    router = LinuxRouter(interface)
    router.apply(CONFIG)
    router.remove()
    router.remove()
    assert addresses(interface) == set()
    assert destinations() == set()
    assert rules("-4") == rules("-6") == []
    router.close()


def test_what_a_killed_process_left_is_removed_and_other_rules_stay(interface: str) -> None:
    router = LinuxRouter(interface)
    router.apply(CONFIG)
    router.close()
    subprocess.run(["ip", "rule", "add", "priority", "5282", "table", "99"], check=True)
    subprocess.run(["ip", "link", "delete", interface], check=True)  # as the kernel does when the process is killed
    with Netlink() as netlink:
        assert not in_use(netlink)
        assert remove_rules(netlink) == 8
        assert remove_rules(netlink) == 0
    assert rules("-4") == [5282]
    assert destinations() == set()


def test_a_second_burid_leaves_the_firsts_routes_and_rules_alone(interface: str) -> None:
    subprocess.run(["ip", "tuntap", "add", "dev", "buri8", "mode", "tun"], check=True)
    first, second = LinuxRouter(interface), LinuxRouter("buri8")
    first.apply(CONFIG)
    second.apply(RouterConfig(addresses=(ip_address("100.64.0.9"),), routes=(ip_network("10.0.0.0/8"),)))
    assert destinations() == {*FIRSTS, "100.64.0.9", "10.0.0.0/8"}
    second.remove()
    assert destinations() == FIRSTS
    assert rules("-4") == [5281, 5283, 5285, 5287]
    first.remove()
    assert rules("-4") == []
    first.close()
    second.close()


def test_offline_nothing_is_left_but_the_interface_and_online_all_is_back(interface: str) -> None:
    router = LinuxRouter(interface)
    router.apply(CONFIG)
    router.apply(RouterConfig())
    assert (addresses(interface), destinations(), rules("-4"), rules("-6")) == (set(), set(), [], [])
    router.apply(CONFIG)
    assert (destinations(), rules("-4")) == (FIRSTS, [5281, 5283, 5285, 5287])
    router.close()


def test_a_burid_without_a_peer_is_seen_by_those_who_would_clean_up(interface: str) -> None:
    router = LinuxRouter(interface)
    router.apply(RouterConfig(addresses=CONFIG.addresses))
    with Netlink() as netlink:
        assert in_use(netlink)
        router.remove()
        assert not in_use(netlink)
    router.close()


def test_a_missing_interface_is_one_sentence(interface: str) -> None:
    router = LinuxRouter("absent0")
    with pytest.raises(SystemFault, match="absent0 is gone"):
        router.apply(CONFIG)
    router.close()


def test_rules_and_mark_stay_clear_of_tailscales() -> None:
    assert not MARK_MASK & 0x00FF0000
    assert MARK & MARK_MASK == MARK
    assert all(not 5200 <= rule.priority <= 5270 for rule in RULES)
    assert Rule(5287, TABLE) in RULES
