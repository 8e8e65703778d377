"""Pongs, durations, columns, the netcheck report and the whois paragraph, to the letter."""

from __future__ import annotations

import pytest

from buri.cli.render.columns import columns, go_duration
from buri.cli.render.netcheck import render_netcheck
from buri.cli.render.ping import render_pong
from buri.cli.render.whois import render_whois
from buri.wire.localapi import NetcheckReport, PingResult, WhoIsResponse
from buri.wire.tailcfg.derpmap import DERPMap, DERPRegion
from buri.wire.tailcfg.node import Node, UserProfile


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (
            {"derp_region_id": 7, "derp_region_code": "tok"},
            "pong from kichijouji (100.108.132.113) via DERP(tok) in 39ms",
        ),
        ({"endpoint": "1.2.3.4:41641"}, "pong from kichijouji (100.108.132.113) via 1.2.3.4:41641 in 39ms"),
        (
            {"peer_relay": "1.2.3.4:5:vni:6"},
            "pong from kichijouji (100.108.132.113) via peer-relay(1.2.3.4:5:vni:6) in 39ms",
        ),
        ({"peer_api_port": 80}, "pong from kichijouji (100.108.132.113, 80) via disco in 39ms"),
    ],
)
def test_a_pong_in_tailscales_words(fields: dict[str, object], line: str) -> None:
    result = PingResult(
        node_name="kichijouji",
        node_ip="100.108.132.113",
        latency_seconds=0.0391,
        **fields,  # type: ignore[arg-type] # each case has its own fields
    )
    assert render_pong(result, "disco") == line


@pytest.mark.parametrize(
    ("seconds", "step_ms", "text"),
    [
        (0.0391, 1.0, "39ms"),
        (0.0395, 1.0, "40ms"),
        (0.0004, 1.0, "0s"),
        (0.0005, 1.0, "1ms"),
        (1.234, 1.0, "1.234s"),
        (1.2, 1.0, "1.2s"),
        (0.00234, 0.1, "2.3ms"),
        (0.0005, 0.1, "500µs"),
        (90.0, 1.0, "1m30s"),
        (3661.0, 1.0, "1h1m1s"),
    ],
)
def test_durations_as_go_prints_them(seconds: float, step_ms: float, text: str) -> None:
    assert go_duration(seconds, round_to_ms=step_ms) == text


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert columns([("a", "bb"), ("ccc", "d")]) == ["a    bb", "ccc  d"]
    assert columns([("a", "b")], padding=5, least=10) == ["a         b"]
    assert columns([]) == []


def test_a_netcheck_report_as_tailscale_lays_it_out() -> None:
    regions = {
        2: DERPRegion(region_id=2, region_code="osa", region_name="Osaka"),
        7: DERPRegion(region_id=7, region_code="tok", region_name="Tokyo"),
        9: DERPRegion(region_id=9, region_code="fra", region_name="Frankfurt"),
    }
    report = NetcheckReport(
        now="2026-01-02T03:04:05Z",
        udp=True,
        ipv4=True,
        global_v4="203.0.113.5:41641",
        os_has_ipv6=True,
        mapping_varies_by_dest_ip=False,
        preferred_derp=7,
        region_latency={2: 12_340_000, 7: 2_340_000},
    )
    assert render_netcheck(report, DERPMap(regions={**regions})) == (
        "\n"
        "Report:\n"
        "\t* Time: 2026-01-02T03:04:05Z\n"
        "\t* UDP: true\n"
        "\t* IPv4: yes, 203.0.113.5:41641\n"
        "\t* IPv6: no, but OS has support\n"
        "\t* MappingVariesByDestIP: false\n"
        "\t* PortMapping:\n"
        "\t* Nearest DERP: Tokyo\n"
        "\t* DERP latency:\n"
        "\t\t- tok: 2.3ms   (Tokyo)\n"
        "\t\t- osa: 12.3ms  (Osaka)\n"
        "\t\t- fra:         (Frankfurt)\n"
    )
    assert "derp7, Tokyo" in render_netcheck(report, DERPMap(regions={**regions}), verbose=True)


def test_a_netcheck_without_any_answer_says_so() -> None:
    text = render_netcheck(NetcheckReport(), DERPMap())
    assert "\t* IPv4: (no addr found)\n" in text
    assert "\t* Nearest DERP: unknown (no response to latency probes)\n" in text


def test_whois_of_a_users_and_of_a_tagged_machine() -> None:
    node = Node(name="osaka.tail.example.", stable_id="n2", addresses=["100.64.0.2/32", "fd7a::2/128"])
    found = WhoIsResponse(node=node, user_profile=UserProfile(id=7, login_name="alice@example.com"))
    assert render_whois(found) == (
        "Machine:\n"
        "  Name:          osaka.tail.example\n"
        "  ID:            n2\n"
        "  Addresses:     [100.64.0.2/32 fd7a::2/128]\n"
        "User:\n"
        "  Name:     alice@example.com\n"
        "  ID:       7\n"
    )
    tagged = WhoIsResponse(
        node=Node(name="db.", tags=["tag:lab", "tag:db"]), cap_map={"example.com/cap": [{"a": 1}], "plain": None}
    )
    assert render_whois(tagged).endswith(
        "  Tags:          tag:lab, tag:db\n"
        "Capabilities:\n"
        "  - example.com/cap:\n"
        "      [\n"
        "        {\n"
        '          "a": 1\n'
        "        }\n"
        "      ]\n"
        "  - plain\n"
    )
