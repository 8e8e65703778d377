"""Policy text to a validated `Policy`: all but SSH, which is `sshdocument.py`'s.

Every fault of the file is found in one reading. The words are those of Tailscale's service, taken from captures.
"""

from __future__ import annotations

from typing import Any

from buri.core.addresses import parse_prefix
from buri.core.errors import WireError
from buri.policy import sshdocument
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
from buri.policy.ports import Ports, parse_ip_access, parse_protocol
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
    )
)
_ACL = frozenset(["action", "src", "dst", "users", "ports", "proto", "srcposture"])
_GRANT = frozenset(["src", "dst", "ip", "app", "via", "srcposture"])
_OPEN_CAPABILITIES = frozenset(
    f"tailscale.com/cap/{name}" for name in ("drive", "golink", "kubernetes", "relay", "secrets", "tsidp", "webui")
)
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
    def __init__(self, top: Reader, domains: frozenset[str] | None) -> None:
        self.top = top
        self.faults = top.faults
        self.domains = domains
        self.groups = self._groups()
        self.tag_owners = self._tag_owners()
        self.names = Names(self.groups, self.tag_owners, self._hosts())
        self.postures = self._postures()
        self._check_owners()

    def policy(self) -> Policy:
        top = self.top
        rules: tuple[Rule, ...] | None = None
        if top.has("acls") or top.has("grants"):
            grants = [self._grant(path, item) for path, item in top.items("grants")]
            rules = tuple([*grants, *(self._acl(path, item) for path, item in top.items("acls"))])
        derp_map = top.any("derpmap")
        return Policy(
            rules=rules,
            groups=self.groups,
            hosts=self.names.hosts,
            tag_owners=self.tag_owners,
            auto_approvers=self._auto_approvers(),
            node_attrs=tuple(self._node_attr(path, item) for path, item in top.items("nodeattrs")),
            postures=self.postures,
            default_posture=self._posture_names(top, "defaultsrcposture"),
            ssh=tuple(
                sshdocument.rule(path, item, self.faults, self.names, self.domains) for path, item in top.items("ssh")
            ),
            tests=tuple(self._test(path, item) for path, item in top.items("tests")),
            ssh_tests=tuple(
                sshdocument.test(path, item, self.faults, self.names) for path, item in top.items("sshtests")
            ),
            derp_map=derp_map if isinstance(derp_map, dict) else None,
            disable_ipv4=top.flag("disableipv4"),
            randomize_client_port=top.flag("randomizeclientport"),
        )

    # What the file defines

    def _groups(self) -> dict[str, tuple[str, ...]]:
        groups: dict[str, tuple[str, ...]] = {}
        for path, name, value in self.top.entries("groups"):
            if not name.startswith("group:") or name == "group:":
                self.faults.add(path, f'groups["{name}"]: group names must start with "group:"')
            members: list[str] = []
            for at, member in self.top.strings(path, value):
                if member.startswith("group:"):
                    self.faults.add(at, f'groups["{name}"]: "{member}": group members cannot be recursive')
                elif "@" not in member:
                    self.faults.add(at, f'groups["{name}"]: "{member}": group members must be users')
                members.append(member.strip())
            groups[name] = tuple(members)
        return groups

    def _tag_owners(self) -> dict[str, tuple[str, ...]]:
        owners: dict[str, tuple[str, ...]] = {}
        for path, name, value in self.top.entries("tagowners"):
            if fault := tag_fault(name):
                self.faults.add(path, f'tagOwners["{name}"]: {fault}')
            owners[name] = tuple(owner.strip() for _, owner in self.top.strings(path, value))
        return owners

    def _check_owners(self) -> None:
        for path, name, value in self.top.entries("tagowners"):
            for at, owner in self.top.strings(path, value) if isinstance(value, list) else ():
                self._selected(at, owner, f'tagOwners["{name}"]: ')

    def _hosts(self) -> dict[str, Selector]:
        hosts: dict[str, Selector] = {}
        for path, name, value in self.top.entries("hosts"):
            if not isinstance(value, str):
                self.faults.add(path, f'hosts["{name}"]: an address or CIDR is expected')
            elif ":" in name or "/" in name or "@" in name or name in ("", "*"):
                self.faults.add(path, f'hosts["{name}"]: host names may not hold ":", "/", "@" or be "*"')
            else:
                try:
                    hosts[name] = address_selector(name, value.strip())
                except WireError:
                    self.faults.add(path, f'hosts["{name}"]: "{value}": invalid address')
        for path, name, value in self.top.entries("ipsets"):
            if not name.startswith("ipset:"):
                self.faults.add(path, f'ipsets["{name}"]: names of ipsets must start with "ipset:"')
                continue
            try:
                hosts[name] = ipset_selector(name, [word for _, word in self.top.strings(path, value)], hosts)
            except WireError as error:
                self.faults.add(path, f'ipsets["{name}"]: {error}')
        return hosts

    def _postures(self) -> dict[str, tuple[Condition, ...]]:
        postures: dict[str, tuple[Condition, ...]] = {}
        for path, name, value in self.top.entries("postures"):
            if not name.startswith("posture:"):
                self.faults.add(path, f'postures["{name}"]: names of postures must start with "posture:"')
            conditions: list[Condition] = []
            for at, text in self.top.strings(path, value):
                try:
                    conditions.append(parse_condition(text))
                except ValueError as error:
                    self.faults.add(at, str(error))
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
        for path, prefix, value in reader.entries("routes"):
            approvers = self._selectors(reader.strings(path, value), f'autoApprovers["{prefix}"]: ')
            try:
                routes.append((str(parse_prefix(prefix)), approvers))
            except WireError:
                self.faults.add(path, f'autoApprovers["{prefix}"]: not an IP prefix')
        return AutoApprovers(tuple(routes), self._selectors(reader.texts("exitnode"), "autoApprovers.exitNode: "))

    # Rules

    def _acl(self, path: Path, item: Any) -> Rule:
        reader = Reader(item, path, self.faults, _ACL)
        action = reader.text("action")
        if action != "accept":
            self.faults.add(reader.at("action"), f'action="{action}" is not supported')
        src_key, dst_key = ("src" if reader.has("src") else "users"), ("dst" if reader.has("dst") else "ports")
        srcs = self._srcs(reader.texts(src_key))
        targets: list[Target] = []
        for at, word in reader.texts(dst_key):
            try:
                selector, ports = self.names.target(word)
            except UnknownNameError as error:
                self.faults.add(at, f'dst="{word.rpartition(":")[0]}": {error}')
            except ValueError as error:
                self.faults.add(at, f'dst="{word}": {error}')
            else:
                self._check_dst(at, selector, srcs, everyone_may_self=True)
                targets.append(Target(selector, ports))
        protocols: tuple[int, ...] = ()
        try:
            protocols = parse_protocol(reader.text("proto"))
        except ValueError as error:
            self.faults.add(reader.at("proto"), str(error))
        posture = self._posture_names(reader, "srcposture")
        return Rule(path, srcs, tuple(targets), (Access(protocols, ()),), posture=posture)

    def _grant(self, path: Path, item: Any) -> Rule:
        reader = Reader(item, path, self.faults, _GRANT)
        srcs = self._srcs(reader.texts("src"))
        targets: list[Target] = []
        for at, word in reader.texts("dst"):
            try:
                selector = self.names.select(word)
            except UnknownNameError as error:
                self.faults.add(at, f'dst="{word}": {error}')
            else:
                self._check_dst(at, selector, srcs, everyone_may_self=False)
                targets.append(Target(selector))
        app = self._app(reader)
        accesses = self._accesses(reader)
        if not app and not reader.items("ip"):
            self.faults.add(path, "ip and app can not both be empty")
        via: list[str] = []
        for at, word in reader.texts("via"):
            if not word.startswith("tag:"):
                self.faults.add(at, "via can only be a tag")
            elif word not in self.names.tags:
                self.faults.add(at, f'tag "{word}" not found')
            via.append(word)
        posture = self._posture_names(reader, "srcposture")
        return Rule(path, srcs, tuple(targets), accesses, app=app or None, via=tuple(via), posture=posture)

    def _accesses(self, reader: Reader) -> tuple[Access, ...]:
        """A grant's ip entries, gathered by protocol in the order of their first appearance."""
        by_protocol: dict[tuple[int, ...], list[Ports]] = {}
        for at, word in reader.texts("ip"):
            try:
                protocols, ports = parse_ip_access(word)
            except ValueError as error:
                self.faults.add(at, str(error))
            else:
                by_protocol.setdefault(protocols, []).extend(ports)
        return tuple(Access(protocols, tuple(ports)) for protocols, ports in by_protocol.items())

    def _app(self, reader: Reader) -> dict[str, list[Any]]:
        app: dict[str, list[Any]] = {}
        for at, name, values in reader.entries("app"):
            domain = name.partition("/")[0]
            if (domain == "tailscale.com" or domain.endswith(".tailscale.com")) and name not in _OPEN_CAPABILITIES:
                self.faults.add(at, "capability name must not be in the tailscale.com domain")
            if "/" not in name or "." not in domain or "://" in name:
                self.faults.add(at, f'capability name "{name}" must have the form DOMAIN/NAME')
            if values is not None and not isinstance(values, list):
                self.faults.add(at, f'the values of capability "{name}" must be a list')
                values = []
            app[name] = values or []
        return app

    def _srcs(self, words: list[tuple[Path, str]]) -> tuple[Selector, ...]:
        srcs = self._selectors(words, "src=")
        for at, word in words:
            if word.strip() in (SELF, INTERNET, NONROOT):
                self.faults.add(at, f'"{word.strip()}" not valid on the src side of a rule')
            elif word.strip().startswith("user:*@"):
                self.faults.add(at, f'src="{word}": user:*@<domain> is for ssh rules alone')
        return srcs

    def _check_dst(self, at: Path, selector: Selector, srcs: tuple[Selector, ...], *, everyone_may_self: bool) -> None:
        if selector.name == DANGER_ALL:
            self.faults.add(at, "cannot use autogroup:danger-all as a dst")
        elif selector.name == NONROOT or selector.kind is Kind.DOMAIN:
            self.faults.add(at, f'"{selector.text}" not valid on the dst side of a rule')
        elif any(prefix.prefixlen == 0 for prefix in selector.prefixes):
            self.faults.add(at, f'dst "{selector.text}": to allow all IP addresses, use "*" or "autogroup:internet"')
        elif selector.name == SELF:
            for src in srcs:
                named = src.kind in (Kind.USER, Kind.GROUP)
                role = src.kind is Kind.AUTOGROUP and (src.name == MEMBER or src.name in ROLES)
                if not (named or role or (everyone_may_self and src.kind is Kind.EVERYONE)):
                    self.faults.add(at, _SELF_FAULT)
                    return

    # The rest

    def _node_attr(self, path: Path, item: Any) -> NodeAttr:
        reader = Reader(item, path, self.faults, frozenset(("target", "attr", "app", "ippool")))
        targets = self._selectors(reader.texts("target"), "")
        for at, word in reader.texts("target"):
            if word.strip() in (SELF, INTERNET, NONROOT, DANGER_ALL) or word.strip().startswith("user:*@"):
                self.faults.add(at, f'"{word}" not valid as a target of nodeAttrs')
        app = {name: values for _, name, values in reader.entries("app") if isinstance(values, list)}
        pool: list[str] = []
        for at, word in reader.texts("ippool"):
            try:
                pool.append(str(parse_prefix(word)))
            except WireError:
                self.faults.add(at, f'ipPool "{word}": not an IP prefix')
        attrs = tuple(attr for _, attr in reader.texts("attr"))
        return NodeAttr(path, targets, attrs, app or None, tuple(pool))

    def _test(self, path: Path, item: Any) -> AccessTest:
        known = frozenset(("src", "user", "proto", "accept", "allow", "deny", "srcpostureattrs"))
        reader = Reader(item, path, self.faults, known)
        accept = reader.texts("accept") or reader.texts("allow")
        return AccessTest(
            path,
            (reader.text("src") or reader.text("user")).strip(),
            reader.text("proto"),
            tuple(word for _, word in accept),
            tuple(word for _, word in reader.texts("deny")),
        )

    def _posture_names(self, reader: Reader, name: str) -> tuple[str, ...]:
        words = reader.texts(name)
        for at, word in words:
            if word not in self.postures:
                self.faults.add(at, f'posture not found: "{word}"')
        return tuple(word for _, word in words)

    def _selectors(self, words: list[tuple[Path, str]], before: str) -> tuple[Selector, ...]:
        selected = (self._selected(at, word, before) for at, word in words)
        return tuple(selector for selector in selected if selector is not None)

    def _selected(self, at: Path, word: str, before: str) -> Selector | None:
        try:
            return self.names.select(word)
        except UnknownNameError as error:
            self.faults.add(at, f"{before}{error}")
            return None
