from __future__ import annotations

from random import Random

from buri.machine.homechoice import FAILING_S, HISTORY_S, HomeChoice
from buri.machine.netcheck import NetReport
from buri.wire.tailcfg.derpmap import DERPHomeParams, DERPMap, DERPNode, DERPRegion


def test_no_home_before_the_first_report_unless_there_is_but_one_region() -> None:
    assert choice(1, 2).choose(0, 1.0) == 0
    assert choice(7).choose(0, 1.0) == 7
    assert choice().choose(0, 1.0) == 0


def test_the_quickest_region_becomes_home() -> None:
    homes = choice(1, 2, 3)
    homes.add_report(report({1: 0.050, 2: 0.020, 3: 0.100}), 1.0)

    assert homes.choose(0, 1.0) == 2


def test_home_is_kept_for_a_gain_under_ten_milliseconds_or_under_a_third() -> None:
    homes = choice(1, 2)
    homes.add_report(report({1: 0.012, 2: 0.003}), 1.0)
    assert homes.choose(1, 1.0) == 1
    homes = choice(1, 2)
    homes.add_report(report({1: 0.100, 2: 0.070}), 1.0)
    assert homes.choose(1, 1.0) == 1
    homes = choice(1, 2)
    homes.add_report(report({1: 0.100, 2: 0.060}), 1.0)
    assert homes.choose(1, 1.0) == 2


def test_the_best_of_five_minutes_counts_not_the_last_slow_moment() -> None:
    homes = choice(1, 2)
    homes.add_report(report({1: 0.020, 2: 0.030}), 0.0)
    homes.add_report(report({1: 0.200, 2: 0.030}), 100.0)
    assert homes.choose(1, 100.0) == 1
    homes.add_report(report({1: 0.200, 2: 0.030}), HISTORY_S + 1)
    assert homes.choose(1, HISTORY_S + 1) == 2


def test_a_region_score_makes_a_region_seem_nearer() -> None:
    homes = HomeChoice(Random(1))
    homes.set_map(derp_map(1, 2, scores={2: 0.25}), 1.0)
    homes.add_report(report({1: 0.040, 2: 0.060}), 1.0)

    assert homes.choose(0, 1.0) == 2


def test_home_does_not_move_while_control_is_away() -> None:
    homes = choice(1, 2)
    homes.control_connected = False
    homes.add_report(report({1: 0.200, 2: 0.010}), 1.0)

    assert homes.choose(1, 1.0) == 1


def test_a_home_missing_from_the_report_is_kept_while_it_speaks_and_left_when_it_went() -> None:
    homes = choice(1, 2)
    homes.home_spoke(50.0)
    homes.add_report(report({2: 0.010}), 60.0)
    assert homes.choose(1, 60.0) == 1
    assert homes.choose(1, 171.0) == 2
    homes.home_spoke(172.0)
    homes.home_went()
    assert homes.choose(1, 172.0) == 2


def test_a_report_of_nothing_moves_nothing_and_without_home_gives_a_stable_one() -> None:
    homes = choice(1, 2, 3)
    homes.add_report(report({}), 1.0)

    assert homes.choose(2, 1.0) == 2
    first = homes.choose(0, 1.0)
    assert first in (1, 2, 3)
    assert homes.choose(0, 2.0) == first


def test_a_relay_that_cannot_be_connected_to_is_passed_over_for_a_while() -> None:
    homes = choice(1, 2)
    homes.add_report(report({1: 0.010, 2: 0.050}), 1.0)
    homes.relay_fails(1, 1.0)
    assert homes.choose(1, 1.0) == 2
    assert homes.choose(2, 1.0) == 2
    homes.add_report(report({1: 0.010, 2: 0.050}), 1.0 + FAILING_S)
    assert homes.choose(2, 1.0 + FAILING_S) == 1


def test_regions_marked_avoid_or_not_home_are_chosen_last_or_never() -> None:
    homes = HomeChoice(Random(1))
    regions = derp_map(1, 2, 3)
    assert regions.regions is not None
    for number, mark in ((1, "avoid"), (2, "no_measure_no_home")):
        setattr(regions.regions[number], mark, True)
    homes.set_map(regions, 1.0)
    homes.add_report(report({1: 0.001, 2: 0.001, 3: 0.1}), 1.0)

    assert homes.choose(0, 1.0) == 3


def choice(*regions: int) -> HomeChoice:
    homes = HomeChoice(Random(1))
    homes.set_map(derp_map(*regions), 1.0)
    return homes


def derp_map(*regions: int, scores: dict[int, float] | None = None) -> DERPMap:
    return DERPMap(
        home_params=DERPHomeParams(region_score=scores) if scores else None,
        regions={
            number: DERPRegion(
                region_id=number, nodes=[DERPNode(name=str(number), region_id=number, ipv4=f"203.0.113.{number}")]
            )
            for number in regions
        },
    )


def report(latency_s: dict[int, float]) -> NetReport:
    return NetReport(udp=True, ipv4=True, region_latency_s=latency_s)
