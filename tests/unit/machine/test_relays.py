"""Which relays are connected to, by hand."""

from __future__ import annotations

from ipaddress import IPv4Address
from itertools import pairwise
from random import Random

from buri.machine.netcheck import NetReport
from buri.machine.relays import (
    BACKOFF_LONGEST_S,
    IDLE_CLOSE_S,
    CloseRelay,
    ConnectRelay,
    HomeChanged,
    NetcheckWanted,
    PreferRelay,
    RelayEvent,
    RelayIntent,
    RelayManager,
    ResolveHost,
)
from buri.testing.playbook import Playbook
from buri.wire.tailcfg.derpmap import DERPMap, DERPNode, DERPRegion

PIN = "sha256-raw:" + "ab" * 32


class Stage:
    def __init__(self, *regions: DERPRegion) -> None:
        self.relays = RelayManager(Random(1))
        self.book: Playbook[RelayIntent, RelayEvent] = Playbook(self.relays)
        self.set_map(*regions)

    def set_map(self, *regions: DERPRegion) -> None:
        self.relays.set_derp_map(DERPMap(regions={region.region_id: region for region in regions}), self.book.now)
        self.book.drain()

    def report(self, **latency_ms: float) -> None:
        seen = {int(name[1:]): value / 1000 for name, value in latency_ms.items()}
        self.relays.handle_report(NetReport(udp=True, region_latency_s=seen), self.book.now)
        self.book.drain()

    def take(self) -> list[RelayIntent]:
        self.book.drain()
        sent, self.book.sent = self.book.sent, []
        return sent

    def up(self, region: int) -> None:
        self.relays.handle_relay_up(region, self.book.now)
        self.book.drain()

    def down(self, region: int) -> None:
        self.relays.handle_relay_down(region, "refused", self.book.now)
        self.book.drain()


def test_home_is_connected_to_once_measured_as_the_map_describes_it() -> None:
    stage = Stage(region(1, port=8443, cert_name=PIN), region(2))
    assert stage.take() == []
    stage.report(r1=10, r2=50)

    assert stage.book.said == [HomeChanged(1)]
    assert stage.take() == [
        ConnectRelay(
            region=1,
            addresses=(IPv4Address("203.0.113.1"),),
            port=8443,
            server_name="relay1.example",
            certificate=PIN,
            preferred=True,
        )
    ]


def test_a_relay_for_tests_is_insecure_and_plain_only_when_asked_for() -> None:
    stage = Stage(region(1, insecure=True))
    (intent,) = stage.take()
    assert isinstance(intent, ConnectRelay)
    assert (intent.insecure, intent.plain, intent.port) == (True, False, 443)


def test_another_region_is_connected_while_used_and_closed_after_a_minute() -> None:
    stage = Stage(region(1), region(2))
    stage.report(r1=10, r2=50)
    stage.up(1)
    stage.take()
    stage.relays.use(2, stage.book.now)
    (connect,) = stage.take()
    assert isinstance(connect, ConnectRelay)
    assert (connect.region, connect.preferred) == (2, False)
    stage.up(2)
    stage.book.advance(IDLE_CLOSE_S - 1)
    stage.relays.use(2, stage.book.now)
    stage.book.advance(IDLE_CLOSE_S - 1)
    assert stage.take() == []
    stage.book.advance(2)

    assert stage.take() == [CloseRelay(2)]
    assert [status.region for status in stage.relays.status()] == [1]
    assert stage.relays.next_timeout() is None


def test_a_region_in_use_before_any_map_told_of_it_is_connected_when_one_does() -> None:
    stage = Stage()
    stage.relays.use(2, stage.book.now)
    stage.book.advance(0.2)
    assert stage.take() == []
    stage.set_map(region(2), region(3))

    assert [intent.region for intent in stage.take()] == [2]


def test_home_moves_by_connecting_the_new_one_and_telling_both() -> None:
    stage = Stage(region(1), region(2))
    stage.report(r1=10, r2=50)
    stage.up(1)
    stage.relays.use(2, stage.book.now)
    stage.up(2)
    stage.take()
    stage.book.advance(400)
    stage.take()
    stage.relays.use(2, stage.book.now)
    stage.up(2)
    stage.take()
    stage.report(r1=200, r2=20)

    assert set(stage.take()) >= {PreferRelay(2, True)}
    assert stage.relays.home == 2


def test_a_lost_home_is_measured_at_once_and_reopened_with_growing_gaps() -> None:
    stage = Stage(region(1))
    stage.take()
    stage.up(1)
    opened_at = []
    stage.down(1)
    assert NetcheckWanted(1) in stage.book.said
    for _ in range(400):
        stage.book.advance(0.25)
        if any(isinstance(intent, ConnectRelay) for intent in stage.take()):
            opened_at.append(stage.book.now)
            stage.down(1)
    gaps = [later - earlier for earlier, later in pairwise(opened_at)]

    assert gaps[0] <= 1.25
    assert max(gaps) <= BACKOFF_LONGEST_S + 0.25
    assert max(gaps) > 6
    stage.book.advance(20)
    stage.take()
    stage.up(1)
    assert [(s.connected, s.problem) for s in stage.relays.status()] == [(True, "")]


def test_after_two_failures_the_next_quickest_is_home() -> None:
    stage = Stage(region(1), region(2))
    stage.report(r1=10, r2=50)
    stage.down(1)
    stage.book.advance(1)
    stage.down(1)

    assert stage.relays.home == 2
    assert stage.book.said[-1] == HomeChanged(2)


def test_the_second_node_of_a_region_is_tried_after_the_first_failed() -> None:
    stage = Stage(region(1, nodes=2))
    (first,) = stage.take()
    stage.down(1)
    stage.book.advance(1)
    (second,) = stage.take()

    assert isinstance(first, ConnectRelay)
    assert isinstance(second, ConnectRelay)
    assert (first.addresses, second.addresses) == ((IPv4Address("203.0.113.1"),), (IPv4Address("203.0.113.101"),))


def test_a_name_without_addresses_is_looked_up_first() -> None:
    stage = Stage(region(1, ipv4=""))
    assert stage.take() == []
    assert stage.book.said == [HomeChanged(1), ResolveHost("relay1.example")]
    stage.relays.set_addresses("relay1.example", (), stage.book.now)
    stage.book.drain()
    assert stage.relays.status()[0].problem == "the name relay1.example has no address"
    stage.book.advance(1)
    assert stage.book.said[-1] == ResolveHost("relay1.example")
    stage.relays.set_addresses("relay1.example", (IPv4Address("203.0.113.9"),), stage.book.now)
    (connect,) = stage.take()

    assert isinstance(connect, ConnectRelay)
    assert connect.addresses == (IPv4Address("203.0.113.9"),)


def test_a_changed_map_reopens_what_moved_and_closes_what_is_gone() -> None:
    stage = Stage(region(1), region(2))
    stage.report(r1=10, r2=50)
    stage.up(1)
    stage.relays.use(2, stage.book.now)
    stage.up(2)
    stage.take()
    stage.set_map(region(1, port=8443), region(3))
    intents = stage.take()

    assert intents[:2] == [CloseRelay(1), CloseRelay(2)]
    assert [(i.region, i.port) for i in intents if isinstance(i, ConnectRelay)] == [(1, 8443)]


def test_the_same_map_again_touches_no_connection() -> None:
    stage = Stage(region(1), region(2))
    stage.report(r1=10, r2=50)
    stage.up(1)
    stage.take()
    stage.set_map(region(1), region(2))

    assert stage.take() == []


def test_a_changed_network_opens_everything_anew_without_waiting_for_a_back_off() -> None:
    stage = Stage(region(1))
    stage.take()
    for _ in range(5):
        stage.down(1)
        stage.book.advance(20)
    stage.up(1)
    stage.take()
    stage.relays.link_changed(stage.book.now)
    intents = stage.take()

    assert intents[0] == CloseRelay(1)
    assert isinstance(intents[1], ConnectRelay)


def test_a_relays_own_complaint_is_shown() -> None:
    stage = Stage(region(1))
    stage.up(1)
    stage.relays.handle_relay_health(1, "overloaded")

    assert [status.problem for status in stage.relays.status()] == ["overloaded"]


def test_a_relay_that_nobody_wanted_any_more_is_closed_when_it_comes_up() -> None:
    stage = Stage(region(1))
    stage.take()
    stage.up(9)

    assert stage.take() == [CloseRelay(9)]


def region(
    number: int,
    *,
    port: int = 0,
    cert_name: str = "",
    nodes: int = 1,
    ipv4: str | None = None,
    insecure: bool = False,
) -> DERPRegion:
    return DERPRegion(
        region_id=number,
        nodes=[
            DERPNode(
                name=f"{number}{index}",
                region_id=number,
                host_name=f"relay{number}.example",
                cert_name=cert_name,
                ipv4=f"203.0.113.{number + 100 * index}" if ipv4 is None else ipv4,
                derp_port=port,
                insecure_for_tests=insecure,
            )
            for index in range(nodes)
        ],
    )
