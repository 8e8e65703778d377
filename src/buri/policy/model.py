"""A policy, read and validated: nothing here depends on who is in the tailnet.

`document.py` builds it; `compiler.py` joins it with a tailnet. Every rule carries the path of its place in the file.
Rules and their parts hold no cycles, so the garbage collector need not look at them (`gc=False`).
"""

from __future__ import annotations

from typing import Any

import msgspec

from buri.policy.ports import Ports
from buri.policy.posture import AttributeValue, Condition
from buri.policy.selectors import Selector
from buri.wire.hujson import Path
from buri.wire.tailcfg.derpmap import DERPMap


class Target(msgspec.Struct, frozen=True, gc=False):
    """Something that may be reached, and at which ports. `ports` is empty in a grant: there its `ip` entries say."""

    selector: Selector
    ports: tuple[Ports, ...] = ()


class Access(msgspec.Struct, frozen=True, gc=False):
    """What the ip side of a rule lets through: protocol numbers (none = TCP, UDP, ICMP) and ports."""

    protocols: tuple[int, ...]
    ports: tuple[Ports, ...]


class Rule(msgspec.Struct, frozen=True, gc=False):
    """An entry of `acls` or `grants`: who reaches what.

    An ACL has one Access without ports: each target brings its own. `has_src`: the file lists at least one source.
    """

    path: Path
    srcs: tuple[Selector, ...]
    targets: tuple[Target, ...]
    accesses: tuple[Access, ...]
    app: dict[str, list[Any]] | None = None
    via: tuple[str, ...] = ()
    posture: tuple[str, ...] = ()


class SshRule(msgspec.Struct, frozen=True):
    """An entry of `ssh`. `check_period_s` is None when the action is "accept"; 0 means "always".

    Sessions are recorded by one of the nodes with a `recorders` tag; with `enforce_recorder` there is none without.
    """

    path: Path
    check: bool
    srcs: tuple[Selector, ...]
    dsts: tuple[Selector, ...]
    users: tuple[str, ...]
    check_period_s: float | None = None
    accept_env: tuple[str, ...] = ()
    posture: tuple[str, ...] = ()
    recorders: tuple[Selector, ...] = ()
    enforce_recorder: bool = False


class NodeAttr(msgspec.Struct, frozen=True):
    path: Path
    targets: tuple[Selector, ...]
    attrs: tuple[str, ...]
    app: dict[str, list[Any]] | None = None
    ip_pool: tuple[str, ...] = ()


class AccessTest(msgspec.Struct, frozen=True):
    """An entry of `tests`, kept as text: what does not resolve makes the test fail, not the file.

    `attributes`: what the source's device posture is supposed to be; None: what each node's is.
    """

    path: Path
    src: str
    protocol: str
    accept: tuple[str, ...]
    deny: tuple[str, ...]
    attributes: dict[str, AttributeValue] | None = None


class SshTest(msgspec.Struct, frozen=True):
    path: Path
    src: str
    dsts: tuple[str, ...]
    accept: tuple[str, ...]
    deny: tuple[str, ...]
    check: tuple[str, ...]


class AutoApprovers(msgspec.Struct, frozen=True):
    """Who may have which routes without being asked."""

    routes: tuple[tuple[str, tuple[Selector, ...]], ...] = ()
    exit_nodes: tuple[Selector, ...] = ()


class Policy(msgspec.Struct, frozen=True):
    """A whole policy. `rules` is None when the file has neither `acls` nor `grants`: then all is allowed.

    `rules` has the grants first and then the ACLs, which is the order of the compiled filters.
    """

    rules: tuple[Rule, ...] | None = None
    groups: dict[str, tuple[str, ...]] = {}
    hosts: dict[str, Selector] = {}
    tag_owners: dict[str, tuple[str, ...]] = {}
    auto_approvers: AutoApprovers = AutoApprovers()
    node_attrs: tuple[NodeAttr, ...] = ()
    postures: dict[str, tuple[Condition, ...]] = {}
    default_posture: tuple[str, ...] = ()
    ssh: tuple[SshRule, ...] = ()
    tests: tuple[AccessTest, ...] = ()
    ssh_tests: tuple[SshTest, ...] = ()
    derp_map: DERPMap | None = None
    disable_ipv4: bool = False
    one_cgnat_route: str = ""
    randomize_client_port: bool = False
