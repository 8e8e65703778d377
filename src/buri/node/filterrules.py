"""The packet filter of the netmap in the engine's terms (wire reference 1a, "Packet filter on the wire").

Only accept rules exist, so what cannot be understood is left out: that never lets more through. `cap:` sources name
peers by capability and are left out as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, summarize_address_range

from buri.core.addresses import IPNetwork, parse_prefix
from buri.core.errors import WireError
from buri.engine import port
from buri.wire.tailcfg.filter import FilterRule

EVERYWHERE: tuple[IPNetwork, ...] = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))
DEFAULT_PROTOCOLS = (6, 17, 1, 58)  # TCP, UDP, ICMPv4, ICMPv6


def compile_rules(rules: Iterable[FilterRule]) -> tuple[port.FilterRule, ...]:
    """The engine's rules that accept what `rules` accept; grants of capabilities alone make none."""
    compiled = []
    read = _Reader().prefixes
    for rule in rules:
        sources = read(rule.src_ips or ())
        if not sources:
            continue
        protocols = tuple(number for number in rule.ip_proto or () if 0 <= number <= 255) or DEFAULT_PROTOCOLS
        if rule.ip_proto and not any(0 <= number <= 255 for number in rule.ip_proto):
            continue
        by_ports: dict[port.PortRange, list[str]] = {}
        for target in rule.dst_ports or ():
            first, last = target.ports.first, target.ports.last
            if 0 <= first <= last <= 0xFFFF:
                by_ports.setdefault(port.PortRange(first, last), []).append(target.ip)
        by_targets: dict[tuple[IPNetwork, ...], list[port.PortRange]] = {}
        for ports, texts in by_ports.items():
            by_targets.setdefault(read(texts), []).append(ports)
        compiled += [
            port.FilterRule(sources, targets, tuple(ranges), protocols)
            for targets, ranges in by_targets.items()
            if targets
        ]
    return tuple(compiled)


class _Reader:
    """Reads lists of addresses: each text, and each list, once, for thousands of rules name the same ones.

    Neighbours and repetitions stay as they are: the engine joins them.
    """

    def __init__(self) -> None:
        self._texts: dict[str, tuple[IPNetwork, ...]] = {}
        self._lists: dict[tuple[str, ...], tuple[IPNetwork, ...]] = {}

    def prefixes(self, texts: Iterable[str]) -> tuple[IPNetwork, ...]:
        key = tuple(texts)
        found = self._lists.get(key)
        if found is None:
            everywhere = "*" in key or ("0.0.0.0/0" in key and "::/0" in key)
            found = EVERYWHERE if everywhere else tuple(prefix for text in key for prefix in self._read(text))
            self._lists[key] = found
        return found

    def _read(self, text: str) -> tuple[IPNetwork, ...]:
        found = self._texts.get(text)
        if found is None:
            try:
                found = tuple(parse_ip_set(text))
            except WireError:
                found = ()
            self._texts[text] = found
        return found


def parse_ip_set(text: str) -> list[IPNetwork]:
    """An IP, a CIDR, "a-b" or "*"; "cap:…" is nobody. Raises WireError for anything else."""
    if text == "*":
        return list(EVERYWHERE)
    if text.startswith("cap:"):
        return []
    first, dash, last = text.partition("-")
    if not dash:
        return [parse_prefix(text)]
    try:
        low, high = ip_address(first), ip_address(last)
        return list(summarize_address_range(low, high))
    except (TypeError, ValueError) as error:
        raise WireError(f"{text!r} is not a range of addresses.") from error
