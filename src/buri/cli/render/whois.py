"""The paragraph of `buri whois`, as Tailscale lays it out."""

from __future__ import annotations

import msgspec

from buri.cli.render.columns import columns
from buri.wire.localapi import WhoIsResponse


def render_whois(found: WhoIsResponse) -> str:
    """Machine, user or tags, capabilities."""
    node = found.node
    rows = [
        ("  Name:", node.name.rstrip(".")),
        ("  ID:", node.stable_id),
        ("  Addresses:", _go_list(node.addresses or [])),
    ]
    if len(node.allowed_ips or ()) > 2:
        rows.append(("  AllowedIPs:", _go_list((node.allowed_ips or [])[2:])))
    if node.tags:
        rows.append(("  Tags:", ", ".join(node.tags)))
    lines = ["Machine:", *columns(rows, padding=5, least=10)]
    if not node.tags:
        user = [("  Name:", found.user_profile.login_name), ("  ID:", str(found.user_profile.id))]
        lines += ["User:", *columns(user, padding=5, least=10)]
    if found.cap_map:
        lines.append("Capabilities:")
        for name, values in sorted(found.cap_map.items()):
            lines.append(f"  - {name}:" if values else f"  - {name}")
            if values:
                text = msgspec.json.format(msgspec.json.encode(values), indent=2).decode()
                lines += [f"      {line}" for line in text.splitlines()]
    return "".join(f"{line}\n" for line in lines)


def _go_list(items: list[str]) -> str:
    return f"[{' '.join(items)}]"
