"""Random policies and tailnets for property tests: small, but every kind of rule and node occurs."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from buri.policy.tailnet import Node, Role, Tailnet, User

PATIENT = settings(
    deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)  # a busy machine is no failure
ROLES: tuple[Role, ...] = ("owner", "admin", "member")
USERS = tuple(User(number, f"u{number}@example.com", role) for number, role in enumerate(ROLES, 1))
TAGS = ("tag:a", "tag:b", "tag:router")
SUBNETS = ("10.1.0.0/16", "10.1.2.0/24", "10.2.0.0/16", "fd00:1::/64", "fd00:1::/48", "8.8.8.0/24", "100.64.0.0/30")
EXITS = ("0.0.0.0/0", "::/0")
PEOPLE = ("u1@example.com", "u2@example.com", "ghost@example.com", "group:x", "group:none", "autogroup:member")
ADDRESSES = (
    *("100.64.0.2", "web", "net", "10.1.0.0/16", "10.1.2.7", "100.64.0.0/29", "100.64.0.8/29", "100.64.0.1-100.64.0.3"),
    *("fd7a:115c:a1e0::3", "fd7a:115c:a1e0::/125", "fd00:1::/64", "8.8.8.8", "ipset:i", "ipset:six"),
)
SRCS = st.lists(
    st.sampled_from(("*", *PEOPLE, *TAGS, *ADDRESSES, "autogroup:tagged", "autogroup:admin", "autogroup:danger-all")),
    max_size=3,
)
DSTS = st.lists(
    st.sampled_from(("*", *PEOPLE, *TAGS, *ADDRESSES, "autogroup:tagged", "autogroup:internet")), min_size=1, max_size=3
)
PORTS = st.sampled_from(("*", "22", "80-443", "22,80"))
POSTURE = st.sampled_from(((), (), ("posture:new",)))


@st.composite
def acls(draw: st.DrawFn) -> dict[str, Any]:
    if draw(st.integers(0, 3)) == 0:
        srcs, dsts = draw(st.lists(st.sampled_from(("*", *PEOPLE)), min_size=1, max_size=2)), ["autogroup:self"]
    else:
        srcs, dsts = draw(SRCS), draw(DSTS)
    rule = {"action": "accept", "src": srcs, "dst": [f"{dst}:{draw(PORTS)}" for dst in dsts]}
    return rule | _maybe("proto", draw(st.sampled_from(("", "tcp", "udp", "6")))) | _maybe("srcPosture", draw(POSTURE))


@st.composite
def grants(draw: st.DrawFn) -> dict[str, Any]:
    if draw(st.integers(0, 4)) == 0:
        srcs, dsts = draw(st.lists(st.sampled_from(PEOPLE), min_size=1, max_size=2)), ["autogroup:self"]
    else:
        srcs, dsts = draw(SRCS), draw(DSTS)
    grant: dict[str, Any] = {"src": srcs, "dst": dsts}
    ip = draw(st.lists(st.sampled_from(("*", "22", "tcp:80", "udp:53", "icmp:*")), max_size=2))
    app = draw(
        st.lists(
            st.sampled_from(("example.com/cap/x", "tailscale.com/cap/drive", "tailscale.com/cap/relay")),
            max_size=2,
            unique=True,
        )
    )
    if "autogroup:internet" in dsts:
        app = []
    if not ip and not app:
        ip = ["*"]
    via = draw(st.lists(st.sampled_from(TAGS), max_size=2)) if draw(st.booleans()) else []
    grant |= _maybe("ip", ip) | _maybe("app", {name: [{}] for name in app})
    return grant | _maybe("via", via) | _maybe("srcPosture", draw(POSTURE))


@st.composite
def ssh_rules(draw: st.DrawFn) -> dict[str, Any]:
    users = st.sampled_from(("root", "ubuntu", "autogroup:nonroot", "localpart:*@example.com"))
    kind = draw(st.integers(0, 2))
    srcs = st.lists(st.sampled_from((*PEOPLE, *TAGS, "autogroup:tagged") if kind == 0 else PEOPLE), max_size=3)
    dsts = st.lists(st.sampled_from(TAGS if kind == 0 else ("autogroup:self", "autogroup:member", *TAGS)), max_size=2)
    person = draw(st.sampled_from(("u1@example.com", "u2@example.com")))
    rule = {
        "action": draw(st.sampled_from(("accept", "check"))),
        "src": [person] if kind == 2 else draw(srcs),
        "dst": [person, *draw(st.lists(st.sampled_from(TAGS), max_size=1))] if kind == 2 else draw(dsts),
        "users": draw(st.lists(users, min_size=1, max_size=3)),
    }
    return rule | _maybe("srcPosture", draw(POSTURE))


def _maybe(key: str, value: Any) -> dict[str, Any]:
    return {key: value} if value else {}


@st.composite
def policies(draw: st.DrawFn) -> str:
    """The text of a policy that is valid."""
    policy: dict[str, Any] = {
        "groups": {"group:x": ["u1@example.com", "u3@example.com"], "group:none": []},
        "hosts": {"web": "100.64.0.3", "net": "10.1.2.0/24"},
        "ipsets": {
            "ipset:i": ["10.2.0.0/16", "remove 10.2.3.0/24", "web"],
            "ipset:six": ["fd00:1::/48", "remove fd00:1::/64", "add fd7a:115c:a1e0::2"],
        },
        "tagOwners": {tag: ["u1@example.com"] for tag in TAGS},
        "postures": {"posture:new": ["node:os == 'linux'", "node:tsVersion >= '1.40'"]},
        "defaultSrcPosture": draw(POSTURE),
        "acls": draw(st.lists(acls(), max_size=4)),
        "grants": draw(st.lists(grants(), max_size=4)),
        "ssh": draw(st.lists(ssh_rules(), max_size=2)),
        "nodeAttrs": [
            {
                "target": draw(st.lists(st.sampled_from((*TAGS, "u1@example.com", "100.64.0.4")), max_size=1)),
                "attr": ["disable-ipv4"],
            }
        ],
    }
    return json.dumps(policy, indent=1)


@st.composite
def nodes(draw: st.DrawFn, node_id: int | None = None) -> Node:
    number = draw(st.integers(1, 7)) if node_id is None else node_id
    tags = tuple(draw(st.lists(st.sampled_from(TAGS), max_size=2, unique=True)))
    routes = draw(st.lists(st.sampled_from(SUBNETS), max_size=2, unique=True)) if draw(st.booleans()) else []
    return Node(
        number,
        None if tags else draw(st.integers(1, 3)),
        tags,
        f"100.64.0.{number}",
        f"fd7a:115c:a1e0::{number}" if draw(st.integers(0, 5)) else "",
        (*routes, *(EXITS if draw(st.integers(0, 3)) == 0 else ())),
        float(draw(st.integers(0, 3))),
        draw(st.booleans()),
        draw(st.sampled_from(({}, {"node:os": "linux", "node:tsVersion": "1.52.1"}, {"node:os": "windows"}))),
    )


@st.composite
def tailnets(draw: st.DrawFn) -> Tailnet:
    ids = draw(st.lists(st.integers(1, 7), unique=True, max_size=6))
    return Tailnet(USERS, tuple(draw(nodes(number)) for number in ids))
