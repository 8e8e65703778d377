"""How nodes and their owners are called in output (upstream: `cmd/tailscale/cli/status.go`, `util/dnsname`)."""

from __future__ import annotations

import re

from buri.wire.localapi import PeerStatus, Status

_COMMON_SUFFIXES = (".local", ".localdomain", ".lan")


def short_name(status: Status, node: PeerStatus) -> str:
    """The MagicDNS name without the tailnet's suffix, else the host name in quotes and brackets."""
    name = node.dns_name.rstrip(".")
    suffix = "." + status.magic_dns_suffix.strip(".")
    if suffix != "." and name.endswith(suffix):
        name = name.removesuffix(suffix)
    if not name:
        return f'("{plain_hostname(node.host_name)}")'
    if name.startswith("xn--"):
        try:
            return f"{name} ({name.encode().decode('idna')})"
        except UnicodeError:
            return name
    return name


def plain_hostname(text: str) -> str:
    """A host's own name as a DNS label."""
    text = text.lower()
    for suffix in _COMMON_SUFFIXES:
        text = text.removesuffix(suffix)
    return re.sub(r"[^a-z0-9]+", "-", text).strip("-")[:63]


def owner(status: Status, node: PeerStatus) -> str:
    """The login name up to its @, `-` for a node without an owner (a tagged one)."""
    if node.user_id == 0:
        return "-"
    user = (status.user or {}).get(node.user_id)
    if user is None:
        return str(node.user_id)
    name, at, _ = user.login_name.partition("@")
    return name + at


def first_address(node: PeerStatus) -> str:
    """The address a node is listed by, "" for a node without one."""
    return node.tailscale_ips[0] if node.tailscale_ips else ""
