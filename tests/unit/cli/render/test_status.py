"""The status table, to the letter."""

from __future__ import annotations

import pytest

from buri.cli.render.status import how_reached, render_status
from buri.wire.localapi import PeerStatus, Status
from buri.wire.tailcfg.base import format_time
from buri.wire.tailcfg.node import UserProfile

NOW_S = 1_700_000_000.0


def test_the_table_has_tailscales_columns() -> None:
    status = Status(
        magic_dns_suffix="tail.example",
        user={7: UserProfile(id=7, login_name="alice@example.com"), 8: UserProfile(id=8, login_name="bob")},
        self_node=node("tokyo", "100.64.0.1", user_id=7),
        peer={
            "b": node(
                "osaka",
                "100.64.0.12",
                user_id=8,
                cur_addr="211.15.239.222:41641",
                active=True,
                tx_bytes=1234,
                rx_bytes=5678,
            ),
            "a": node("kichijouji", "100.108.132.113", relay="tok", active=True, why_relayed="peer behind hard NAT"),
            "c": PeerStatus(host_name="Bob's Laptop.local", tailscale_ips=["100.64.0.3"], os="macOS", user_id=9),
            "d": node("shared", "100.64.0.4", sharee_node=True),
        },
        health=["something is wrong"],
    )
    assert render_status(status, NOW_S) == (
        "100.64.0.1       tokyo             alice@  linux  -\n"
        '100.64.0.3       ("bob-s-laptop")  9       macOS  offline\n'
        '100.108.132.113  kichijouji        -       linux  active; relay "tok" (peer behind hard NAT)\n'
        "100.64.0.12      osaka             bob     linux  active; direct 211.15.239.222:41641, tx 1234 rx 5678\n"
        "\n"
        "# Health check:\n"
        "#     - something is wrong\n"
    )


def test_self_peers_active_and_header_choose_rows() -> None:
    status = Status(
        self_node=node("tokyo", "100.64.0.1"),
        peer={"a": node("nara", "100.64.0.2"), "b": node("kobe", "100.64.0.3", active=True, relay="tok")},
    )
    names = [line.split()[1] for line in render_status(status, NOW_S, this=False, active=True).splitlines()]
    assert names == ["kobe.tail.example"]
    assert render_status(status, NOW_S, peers=False).count("\n") == 1
    assert render_status(status, NOW_S, header=True).splitlines()[0].split() == [
        "IP",
        "Hostname",
        "Owner",
        "OS",
        "Status",
    ]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"online": True}, "-"),
        ({"online": False}, "offline"),
        ({"online": False, "last_seen": format_time(NOW_S - 10)}, "offline, last seen 1m ago"),
        ({"online": False, "last_seen": format_time(NOW_S - 7300)}, "offline, last seen 2h ago"),
        ({"online": False, "last_seen": format_time(NOW_S - 3 * 86400)}, "offline, last seen 3d ago"),
        ({"online": False, "last_seen": "nonsense"}, "offline"),
        ({"online": True, "rx_bytes": 5}, "idle, tx 0 rx 5"),
        ({"online": False, "rx_bytes": 5}, "idle; offline, tx 0 rx 5"),
        ({"online": True, "exit_node": True}, "idle; exit node"),
        ({"online": True, "exit_node_option": True}, "idle; offers exit node"),
        ({"online": True, "active": True, "relay": "tok"}, 'active; relay "tok"'),
        ({"online": False, "active": True, "relay": "tok"}, 'active; relay "tok"; offline'),
        ({"online": True, "active": True, "relay": "tok", "cur_addr": "[::1]:5"}, "active; direct [::1]:5"),
        ({"online": True, "active": True, "peer_relay": "1.2.3.4:5:vni:6"}, "active; peer-relay 1.2.3.4:5:vni:6"),
    ],
)
def test_the_last_column_in_tailscales_words(fields: dict[str, object], words: str) -> None:
    assert how_reached(PeerStatus(**fields), NOW_S) == words  # type: ignore[arg-type] # each case has its own fields


def node(name: str, address: str, **fields: object) -> PeerStatus:
    return PeerStatus(
        host_name=name,
        dns_name=f"{name}.tail.example.",
        tailscale_ips=[address],
        os="linux",
        online=True,
        **fields,  # type: ignore[arg-type] # each case has its own fields
    )
