"""A policy's own tests, run against the tailnet as it is: `tests` and `sshTests`.

Each must name one host and one port; what does not resolve fails the test. A source passes when every address of it
gets to some address of the destination.
"""

from __future__ import annotations

from collections.abc import Iterator

from buri.policy.flows import Endpoint, admits, endpoints, holder
from buri.policy.members import Placed
from buri.policy.model import AccessTest, SshTest
from buri.policy.names import Names, UnknownNameError
from buri.policy.ports import DEFAULT_PROTOCOLS, PORTED, Ports, parse_protocol
from buri.policy.problems import Faults
from buri.policy.reach import Reach
from buri.policy.selectors import INTERNET, SELF, Kind, Selector
from buri.policy.ssh import ssh_rules

FAILED = "test(s) failed"


def run_tests(reach: Reach, names: Names, faults: Faults) -> None:
    """Run all tests; every failure becomes a fault at its place."""
    for test in reach.policy.tests:
        for reason in _access_failures(test, reach, names):
            faults.add(test.path, f"{FAILED}: {reason}")
    for ssh_test in reach.policy.ssh_tests:
        for reason in _ssh_failures(ssh_test, reach, names):
            faults.add(ssh_test.path, f"{FAILED}: {reason}")


def _access_failures(test: AccessTest, reach: Reach, names: Names) -> Iterator[str]:
    try:
        src = _source(test.src, names)
        protocols = parse_protocol(test.protocol) or DEFAULT_PROTOCOLS
        if test.protocol.strip() and not PORTED.issuperset(protocols):
            raise ValueError(f'test protocol must be tcp, udp, sctp, or empty: "{test.protocol}"')
    except ValueError as error:
        yield str(error)
        return
    sources = [one._replace(attributes=test.attributes) for one in _addresses(src, reach)]
    if not sources:
        yield f'src "{test.src}" is nobody in this tailnet'
        return
    if not test.accept and not test.deny:
        yield "neither accept nor deny is given"
    for accept, words in ((True, test.accept), (False, test.deny)):
        for word in words:
            for reason in _judge(word, sources, protocols, reach, names, accept=accept):
                yield f"{test.src} -> {reason}"


def _judge(
    word: str, sources: list[Endpoint], protocols: tuple[int, ...], reach: Reach, names: Names, *, accept: bool
) -> Iterator[str]:
    """What is wrong with one destination: to be accepted, every source must get there."""
    try:
        dsts, ports = _destination(word, reach, names)
    except ValueError as error:
        yield str(error)
        return
    passing = [
        any(admits(edge, one, dst, span, protocols, reach) for dst in dsts for span in ports for edge in reach.edges)
        for one in sources
    ]
    if accept and not all(passing):
        yield f"{word}: to be accepted, but denied"
    if not accept and all(passing):
        yield f"{word}: to be denied, but accepted"


def _source(word: str, names: Names) -> Selector:
    if not word:
        raise ValueError("src must be specified")
    try:
        return names.select(word)
    except UnknownNameError as error:
        raise ValueError(f"src={error}") from None


def _addresses(selector: Selector, reach: Reach) -> Iterator[Endpoint]:
    """The addresses a selector stands for in a test."""
    if selector.kind is Kind.ADDRESS:
        for one in selector.spans:
            yield Endpoint(one, holder(one, reach))
        return
    for placed in reach.members.each(reach.members.mask(selector)):
        yield from endpoints(placed)


def _destination(word: str, reach: Reach, names: Names) -> tuple[list[Endpoint], tuple[Ports, ...]]:
    """A destination and its port: one host and one port, as the service asks; raises ValueError."""
    try:
        selector, ports = names.target(word)
    except UnknownNameError as error:
        raise ValueError(f'dst="{word}": {error}') from None
    if len(ports) != 1 or ports[0].first != ports[0].last:
        raise ValueError(f'dst="{word}": a test names one port')
    network = len(selector.spans) > 1 or "/" in selector.name
    network = network or any(not one.is_host for one in selector.spans)
    if network or selector.kind is Kind.EVERYONE or selector.name in (INTERNET, SELF):
        raise ValueError(f'dst="{word}": a test names a host, not a network')
    dsts = list(_addresses(selector, reach))
    if not dsts:
        raise ValueError(f'dst="{word}": nobody in this tailnet')
    return dsts, ports


def _ssh_failures(test: SshTest, reach: Reach, names: Names) -> Iterator[str]:
    try:
        src = _source(test.src, names)
    except ValueError as error:
        yield str(error)
        return
    members = reach.members
    sources = {
        text
        for placed in members.each(members.mask(src))
        for text in (placed.addresses_in(src.spans) if src.kind is Kind.ADDRESS else placed.addresses)
    }
    if not sources:
        yield f'src "{test.src}" is nobody in this tailnet'
        return
    if not (test.accept or test.deny or test.check):
        yield "none of accept, deny and check is given"
    if not test.dsts:
        yield "SSH tests entry must have at least one dst"
    for dst in test.dsts:
        nodes = _ssh_destinations(dst, src, reach, names)
        if not nodes:
            yield f'dst "{dst}" is nobody in this tailnet'
        for placed in nodes:
            yield from _ssh_verdicts(test, sources, placed, dst, reach)


def _ssh_destinations(word: str, src: Selector, reach: Reach, names: Names) -> list[Placed]:
    members = reach.members
    if ":" in word and "::" in word:
        return []  # the service reads no bare IPv6 address here
    try:
        selector = names.select(word)
    except UnknownNameError:
        return []
    if selector.name == SELF:
        mask = members.mask(src) & ~members.tagged if src.kind is Kind.USER else 0
    else:
        mask = members.mask(selector)
    if selector.kind is Kind.ADDRESS:
        return [placed for placed in members.each(mask) if placed.addresses_in(selector.spans)]
    return list(members.each(mask))


def _ssh_verdicts(test: SshTest, sources: set[str], placed: Placed, dst: str, reach: Reach) -> Iterator[str]:
    rules = ssh_rules(placed, reach)
    for wanted, users in (("accept", test.accept), ("deny", test.deny), ("check", test.check)):
        for user in users:
            for address in sorted(sources):
                allowed, checked = ssh_verdict(rules, address, user)
                good = {"accept": allowed, "deny": not allowed, "check": checked}[wanted] and bool(user)
                if not good:
                    yield f'{test.src} as "{user}" -> {dst}: {wanted} does not hold'
                    break


def ssh_verdict(rules: list[dict[str, object]], address: str, user: str) -> tuple[bool, bool]:
    """Whether some rule lets an address log in as a user, and whether some check rule does."""
    allowed = checked = False
    for rule in rules:
        principals, users, action = rule["principals"], rule["sshUsers"], rule["action"]
        assert isinstance(principals, list)
        assert isinstance(users, dict)
        assert isinstance(action, dict)
        if not any(principal["nodeIP"] == address for principal in principals):
            continue
        local = users.get(user) if user in users or user == "root" else users.get("*")
        if local:
            allowed = True
            checked = checked or "holdAndDelegate" in action
    return allowed, checked
