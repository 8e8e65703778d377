"""Policy text to a validated `Policy`: all but SSH, which is `sshdocument.py`'s.

Every fault of the file is found in one reading. The words are those of Tailscale's service, taken from captures.
"""

from __future__ import annotations

import functools
from typing import Any

from buri.core.errors import WireError
from buri.policy import derpmap, sshdocument
from buri.policy.model import (
    Access,
    AccessTest,
    AutoApprovers,
    NodeAttr,
    Policy,
    Rule,
    Target,
)
from buri.policy.names import Names, UnknownNameError, ipset_selector
from buri.policy.ports import ALL_PORTS, PORTED, Ports, parse_ip_access, parse_protocol
from buri.policy.posture import Condition, parse_condition
from buri.policy.problems import Faults
from buri.policy.reader import Reader
from buri.policy.selectors import (
    DANGER_ALL,
    INTERNET,
    MEMBER,
    NONROOT,
    ROLES,
    SELF,
    Kind,
    Selector,
    address_selector,
    tag_fault,
)
from buri.policy.spans import Span, literal_of, parse_span
from buri.wire.hujson import Document, Path

_TOP = frozenset(
    (
        "acls",
        "grants",
        "groups",
        "hosts",
        "ipsets",
        "tagowners",
        "autoapprovers",
        "nodeattrs",
        "postures",
        "defaultsrcposture",
        "ssh",
        "tests",
        "sshtests",
        "derpmap",
        "disableipv4",
        "randomizeclientport",
        "onecgnatroute",
        "attrconfig",
    )
)
_ACL = frozenset(["action", "src", "dst", "users", "ports", "proto", "srcposture"])
_GRANT = frozenset(["src", "dst", "ip", "app", "via", "srcposture"])
_OPEN_CAPABILITIES = frozenset(
    f"tailscale.com/cap/{name}" for name in ("drive", "golink", "kubernetes", "relay", "secrets", "tsidp", "webui")
)
CGNAT_SPAN = parse_span("100.64.0.0/10")
RESERVED = ("100.100.0.0/24", "100.100.100.0/24", "100.115.92.0/23")  # in every tailnet, for the client's own use
_NO_SOURCES = frozenset((SELF, INTERNET, NONROOT))
_SELF_FAULT = "autogroup:self can only be used with users, groups, or supported autogroups"


def parse(data: bytes | str, *, domains: frozenset[str] | None = None) -> Policy:
    """Read and validate policy text.

    `domains` are the mail domains of the tailnet, which `user:*@…` and `localpart:*@…` may name; None: any may.
    Raises PolicyError with every fault, SyntaxPlaceError when the text is not HuJSON.
    """
    return read(Document.parse(data), domains=domains)


def read(document: Document, *, domains: frozenset[str] | None = None) -> Policy:
    """Validate a document already parsed; raises PolicyError."""
    faults = Faults(document)
    top = Reader(document.value, (), faults, _TOP)
    policy = _DocumentReader(top, domains).policy()
    faults.check()
    return policy


class _DocumentReader:
    """Reads one document. Words and lists seen before, and found good, are looked up: policies repeat themselves."""

    def __init__(self, top: Reader, domains: frozenset[str] | None) -> None:
        self.top = top
        self.faults = top.faults
        self.domains = domains
        self.groups = self._groups()
        self.tag_owners = self._tag_owners()
        self.names = Names(self.groups, self.tag_owners, self._hosts())
        self.postures = self._postures()
        self._good_srcs: dict[tuple[str, ...], tuple[Selector, ...]] = {}
        self._good_targets: dict[str, Target] = {}
        self._check_owners()

    def policy(self) -> Policy:
        top = self.top
        rules: tuple[Rule, ...] | None = None
        if top.has("acls") or top.has("grants"):
            grants = [self._grant(top.at("grants", n), item) for n, item in enumerate(top.items("grants"))]
            at = top.at("acls")
            rules = tuple([*grants, *(self._acl((*at, n), item) for n, item in enumerate(top.items("acls")))])
        return Policy(
            rules=rules,
            groups=self.groups,
            hosts=self.names.hosts,
            tag_owners=self.tag_owners,
            auto_approvers=self._auto_approvers(),
            node_attrs=tuple(self._node_attr(top.at("nodeattrs", n), i) for n, i in enumerate(top.items("nodeattrs"))),
            postures=self.postures,
            default_posture=self._posture_names(top, "defaultsrcposture"),
            ssh=tuple(
                sshdocument.rule(top.at("ssh", n), item, self.faults, self.names, self.domains, self.postures)
                for n, item in enumerate(top.items("ssh"))
            ),
            tests=tuple(self._test(top.at("tests", n), item) for n, item in enumerate(top.items("tests"))),
            ssh_tests=tuple(
                sshdocument.test(top.at("sshtests", n), item, self.faults, self.names)
                for n, item in enumerate(top.items("sshtests"))
            ),
            derp_map=derpmap.read(top.any("derpmap"), top.at("derpmap"), self.faults) if top.has("derpmap") else None,
            one_cgnat_route=self._one_cgnat_route(),
            disable_ipv4=top.flag("disableipv4"),
            randomize_client_port=top.flag("randomizeclientport"),
        )

    # What the file defines

    def _groups(self) -> dict[str, tuple[str, ...]]:
        groups: dict[str, tuple[str, ...]] = {}
        for name, value in self.top.entries("groups"):
            path = self.top.at("groups", name)
            if not name.startswith("group:") or name == "group:":
                self.faults.add(path, f'groups["{name}"]: group names must start with "group:"')
            members: list[str] = []
            for index, member in enumerate(self.top.strings(path, value)):
                if member.startswith("group:"):
                    self.faults.add((*path, index), f'groups["{name}"]: "{member}": group members cannot be recursive')
                elif "@" not in member:
                    self.faults.add((*path, index), f'groups["{name}"]: "{member}": group members must be users')
                members.append(member.strip())
            groups[name] = tuple(members)
        return groups

    def _tag_owners(self) -> dict[str, tuple[str, ...]]:
        owners: dict[str, tuple[str, ...]] = {}
        for name, value in self.top.entries("tagowners"):
            path = self.top.at("tagowners", name)
            if fault := tag_fault(name):
                self.faults.add(path, f'tagOwners["{name}"]: {fault}')
            owners[name] = tuple(owner.strip() for owner in self.top.strings(path, value))
        return owners

    def _check_owners(self) -> None:
        for name, value in self.top.entries("tagowners"):
            path = self.top.at("tagowners", name)
            if self.tag_owners.get(name):
                self._selectors(path, value, f'tagOwners["{name}"]: ')

    def _hosts(self) -> dict[str, Selector]:
        hosts: dict[str, Selector] = {}
        for name, value in self.top.entries("hosts"):
            if not isinstance(value, str):
                self.faults.add(self.top.at("hosts", name), f'hosts["{name}"]: an address or CIDR is expected')
            elif ":" in name or "/" in name or "@" in name or name in ("", "*"):
                fault = f'hosts["{name}"]: host names may not hold ":", "/", "@" or be "*"'
                self.faults.add(self.top.at("hosts", name), fault)
            else:
                try:
                    hosts[name] = address_selector(name, value.strip())
                except WireError:
                    self.faults.add(self.top.at("hosts", name), f'hosts["{name}"]: "{value}": invalid address')
        for name, value in self.top.entries("ipsets"):
            path = self.top.at("ipsets", name)
            if not name.startswith("ipset:"):
                self.faults.add(path, f'ipsets["{name}"]: names of ipsets must start with "ipset:"')
                continue
            try:
                hosts[name] = ipset_selector(name, self.top.strings(path, value), hosts)
            except WireError as error:
                self.faults.add(path, f'ipsets["{name}"]: {error}')
        return hosts

    def _postures(self) -> dict[str, tuple[Condition, ...]]:
        postures: dict[str, tuple[Condition, ...]] = {}
        for name, value in self.top.entries("postures"):
            path = self.top.at("postures", name)
            if not name.startswith("posture:"):
                self.faults.add(path, f'postures["{name}"]: names of postures must start with "posture:"')
            conditions: list[Condition] = []
            for index, text in enumerate(self.top.strings(path, value)):
                try:
                    conditions.append(parse_condition(text))
                except ValueError as error:
                    self.faults.add((*path, index), str(error))
            postures[name] = tuple(conditions)
        return postures

    def _auto_approvers(self) -> AutoApprovers:
        if not self.top.has("autoapprovers"):
            return AutoApprovers()
        reader = Reader(
            self.top.any("autoapprovers"),
            self.top.at("autoapprovers"),
            self.faults,
            frozenset(("routes", "exitnode", "services")),
        )
        routes: list[tuple[str, tuple[Selector, ...]]] = []
        for prefix, value in reader.entries("routes"):
            path = reader.at("routes", prefix)
            approvers = self._selectors(path, reader.strings(path, value), f'autoApprovers["{prefix}"]: ')
            try:
                routes.append((_prefix(prefix), approvers))
            except WireError:
                self.faults.add(path, f'autoApprovers["{prefix}"]: not an IP prefix')
        for name, value in reader.entries("services"):  # who may offer a service: nodes of ours offer none yet
            path = reader.at("services", name)
            if not name.startswith("svc:"):
                self.faults.add(path, f'autoApprovers.services["{name}"]: names of services must start with "svc:"')
            self._selectors(path, reader.strings(path, value), f'autoApprovers.services["{name}"]: ')
        exits = self._selectors(reader.at("exitnode"), reader.words("exitnode"), "autoApprovers.exitNode: ")
        return AutoApprovers(tuple(routes), exits)

    # Rules

    def _acl(self, path: Path, item: Any) -> Rule:
        reader = Reader(item, path, self.faults, _ACL)
        action = reader.text("action")
        if action != "accept":
            self.faults.add(reader.at("action"), f'action="{action}" is not supported')
        srcs = self._srcs(reader, "src" if reader.has("src") else "users")
        targets: list[Target] = []
        dst_key = "dst" if reader.has("dst") else "ports"
        for index, word in enumerate(reader.words(dst_key)):
            target = self._good_targets.get(word)
            if target is None:
                target = self._target(reader, dst_key, index, srcs)
            if target is not None:
                targets.append(target)
        protocols: tuple[int, ...] = ()
        try:
            protocols = parse_protocol(reader.text("proto"))
        except ValueError as error:
            self.faults.add(reader.at("proto"), str(error))
        if protocols and not PORTED.issuperset(protocols) and any(t.ports != (ALL_PORTS,) for t in targets):
            self.faults.add(
                reader.at("proto"),
                f'protocol does not support specific ports: "{reader.text("proto")}", only "*" is allowed',
            )
        return Rule(path, srcs, tuple(targets), _access(protocols), posture=self._posture_names(reader, "srcposture"))

    def _target(self, reader: Reader, name: str, index: int, srcs: tuple[Selector, ...]) -> Target | None:
        """Read an ACL's "HOST:PORTS"."""
        word = reader.words(name)[index]
        try:
            selector, ports = self.names.target(word)
        except UnknownNameError as error:
            self.faults.add(reader.at(name, index), f'dst="{word.rpartition(":")[0]}": {error}')
            return None
        except ValueError as error:
            self.faults.add(reader.at(name, index), f'dst="{word}": {error}')
            return None
        target = Target(selector, ports)
        if fault := _dst_fault(selector, srcs, in_grant=False):
            self.faults.add(reader.at(name, index), fault)
        elif selector.name != SELF:  # that one depends on the sources
            self._good_targets[word] = target
        return target

    def _grant(self, path: Path, item: Any) -> Rule:
        reader = Reader(item, path, self.faults, _GRANT)
        srcs = self._srcs(reader, "src")
        targets: list[Target] = []
        for index, word in enumerate(reader.words("dst")):
            try:
                selector = self.names.select(word)
            except UnknownNameError as error:
                self.faults.add(reader.at("dst", index), f'dst="{word}": {error}')
            else:
                if fault := _dst_fault(selector, srcs, in_grant=True):
                    self.faults.add(reader.at("dst", index), fault)
                targets.append(Target(selector))
        app = self._app(reader)
        if app and any(target.selector.name == INTERNET for target in targets):
            self.faults.add(reader.at("dst"), "cannot use app grants with autogroup:internet")
        accesses = self._accesses(reader)
        if not app and not reader.items("ip"):
            self.faults.add(path, "ip and app can not both be empty")
        via = reader.words("via")
        for index, word in enumerate(via):
            if not word.startswith("tag:"):
                self.faults.add(reader.at("via", index), "via can only be a tag")
            elif word not in self.names.tags:
                self.faults.add(reader.at("via", index), f'tag "{word}" not found')
        posture = self._posture_names(reader, "srcposture")
        return Rule(path, srcs, tuple(targets), accesses, app=app or None, via=tuple(via), posture=posture)

    def _accesses(self, reader: Reader) -> tuple[Access, ...]:
        """A grant's ip entries, gathered by protocol in the order of their first appearance."""
        by_protocol: dict[tuple[int, ...], list[Ports]] = {}
        for index, word in enumerate(reader.words("ip")):
            try:
                protocols, ports = parse_ip_access(word)
            except ValueError as error:
                self.faults.add(reader.at("ip", index), str(error))
            else:
                by_protocol.setdefault(protocols, []).extend(ports)
        return tuple(Access(protocols, tuple(ports)) for protocols, ports in by_protocol.items())

    def _app(self, reader: Reader) -> dict[str, list[Any]]:
        app: dict[str, list[Any]] = {}
        for name, values in reader.entries("app"):
            at = reader.at("app", name)
            domain = name.partition("/")[0]
            if (domain == "tailscale.com" or domain.endswith(".tailscale.com")) and name not in _OPEN_CAPABILITIES:
                self.faults.add(at, "capability name must not be in the tailscale.com domain")
            if "/" not in name or "." not in domain or "://" in name:
                self.faults.add(at, f"capability name must have the form {{domain}}/{{path}}: {name!r} has not")
            if values is not None and not isinstance(values, list):
                self.faults.add(at, f'the values of capability "{name}" must be a list')
                values = []
            app[name] = values or []
        return app

    def _srcs(self, reader: Reader, name: str) -> tuple[Selector, ...]:
        words = reader.words(name)
        found = self._good_srcs.get(key := tuple(words))
        if found is not None:
            return found
        before = len(self.faults)
        srcs: list[Selector] = []
        for index, word in enumerate(words):
            try:
                selector = self.names.select(word)
            except UnknownNameError as error:
                self.faults.add(reader.at(name, index), f"src={error}")
                continue
            if selector.name in _NO_SOURCES:
                self.faults.add(reader.at(name, index), f'"{selector.name}" not valid on the src side of a rule')
            elif selector.kind is Kind.SERVICE:
                self.faults.add(reader.at(name, index), f'"{word}" not valid on the src side of a rule')
            elif selector.kind is Kind.DOMAIN:
                self.faults.add(reader.at(name, index), f'src="{word}": user:*@<domain> is for ssh rules alone')
            srcs.append(selector)
        if len(self.faults) == before:
            self._good_srcs[key] = tuple(srcs)
        return tuple(srcs)

    # The rest

    def _node_attr(self, path: Path, item: Any) -> NodeAttr:
        reader = Reader(item, path, self.faults, frozenset(("target", "attr", "app", "ippool")))
        words = reader.words("target")
        targets = self._selectors(reader.at("target"), words, "")
        for index, word in enumerate(words):
            if word.strip() in (SELF, INTERNET, NONROOT, DANGER_ALL) or word.strip().startswith("user:*@"):
                self.faults.add(reader.at("target", index), f'"{word}" not valid as a target of nodeAttrs')
        app = {name: values for name, values in reader.entries("app") if isinstance(values, list)}
        pool: list[str] = []
        for index, word in enumerate(reader.words("ippool")):
            try:
                pool.append(_prefix(word))
                fault = _pool_fault(parse_span(pool[-1]))
            except WireError:
                fault = "not an IP prefix"
            if fault:
                self.faults.add(reader.at("ippool", index), f'ipPool "{word}": {fault}')
        return NodeAttr(path, targets, tuple(reader.words("attr")), app or None, tuple(pool))

    def _test(self, path: Path, item: Any) -> AccessTest:
        known = frozenset(("src", "user", "proto", "accept", "allow", "deny", "srcpostureattrs"))
        reader = Reader(item, path, self.faults, known)
        accept = reader.words("accept") or reader.words("allow")
        src = (reader.text("src") or reader.text("user")).strip()
        attributes = dict(reader.entries("srcpostureattrs"))
        for name, value in attributes.items():
            if not isinstance(value, str | bool | int | float):
                at = reader.at("srcpostureattrs", name)
                self.faults.add(at, f'srcPostureAttrs["{name}"]: a string, number or boolean is expected')
        deny = tuple(reader.words("deny"))
        return AccessTest(path, src, reader.text("proto"), tuple(accept), deny, attributes or None)

    def _one_cgnat_route(self) -> str:
        word = self.top.text("onecgnatroute")
        if word not in ("", "mac-always", "mac-never"):
            self.faults.add(
                self.top.at("onecgnatroute"), f'oneCGNATRoute "{word}" is none of "", mac-always, mac-never'
            )
        return word

    def _posture_names(self, reader: Reader, name: str) -> tuple[str, ...]:
        if not reader.has(name):
            return ()
        words = reader.words(name)
        for index, word in enumerate(words):
            if word not in self.postures:
                self.faults.add(reader.at(name, index), f'posture not found: "{word}"')
        return tuple(words)

    def _selectors(self, path: Path, words: list[str], before: str) -> tuple[Selector, ...]:
        """What each word of the list at `path` means; those that mean nothing are faults."""
        selectors: list[Selector] = []
        for index, word in enumerate(words):
            try:
                selectors.append(self.names.select(word))
            except UnknownNameError as error:
                self.faults.add((*path, index), f"{before}{error}")
        return tuple(selectors)


def _dst_fault(selector: Selector, srcs: tuple[Selector, ...], *, in_grant: bool) -> str | None:
    """Why a destination is not allowed, in the service's words."""
    if selector.name == DANGER_ALL:
        return "cannot use autogroup:danger-all as a dst"
    if selector.name == NONROOT or selector.kind is Kind.DOMAIN:
        return f'"{selector.text}" not valid on the dst side of a rule'
    if in_grant and "/" in selector.text and any(one.is_family for one in selector.spans):
        return f'dst "{selector.text}": to allow all IP addresses, use "*" or "autogroup:internet"'
    if selector.name == SELF:
        for src in srcs:
            named = src.kind in (Kind.USER, Kind.GROUP)
            role = src.kind is Kind.AUTOGROUP and (src.name == MEMBER or src.name in ROLES)
            if not (named or role or (src.kind is Kind.EVERYONE and not in_grant)):
                return _SELF_FAULT
    return None


@functools.cache
def _access(protocols: tuple[int, ...]) -> tuple[Access, ...]:
    """What an ACL lets through: each of its targets brings its own ports."""
    return (Access(protocols, ()),)


def _pool_fault(pool: Span) -> str | None:
    """Why addresses may not be taken from a pool."""
    if pool != CGNAT_SPAN and not CGNAT_SPAN.holds(pool):
        return "must be within 100.64.0.0/10"
    taken = next((text for text in RESERVED if parse_span(text).overlaps(pool)), None)
    return None if taken is None else f"must not overlap reserved range {taken}"


def _prefix(text: str) -> str:
    """A CIDR in its canonical form; raises WireError."""
    one = parse_span(text if "/" in text else f"{text}/{128 if ':' in text else 32}")
    return literal_of("/", one)
