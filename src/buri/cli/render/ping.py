"""The line of one pong: `pong from kichijouji (100.108.132.113) via DERP(tok) in 39ms`."""

from __future__ import annotations

from buri.cli.render.columns import go_duration
from buri.core.plaintext import plain
from buri.wire.localapi import PingResult


def render_pong(result: PingResult, kind: str) -> str:
    """One line without its end; `kind` stands for the path where the ping's kind does not tell it."""
    port = f", {result.peer_api_port}" if result.peer_api_port else ""
    name = result.node_name.rstrip(".")
    return plain(
        f"pong from {name} ({result.node_ip}{port}) via {_via(result, kind)} in {go_duration(result.latency_seconds)}"
    )


def _via(result: PingResult, kind: str) -> str:
    if result.peer_relay:
        return f"peer-relay({result.peer_relay})"
    if result.derp_region_id:
        return f"DERP({result.derp_region_code})"
    return result.endpoint or kind
