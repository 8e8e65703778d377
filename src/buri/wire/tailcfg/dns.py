"""DNS settings of a netmap (upstream: tailscale `tailcfg.DNSConfig`; wire reference 1h)."""

from __future__ import annotations

from buri.wire.tailcfg.base import Wire, go


class Resolver(Wire):
    addr: str = go("Addr", "")
    bootstrap_resolution: list[str] | None = go("BootstrapResolution", None)
    use_with_exit_node: bool = go("UseWithExitNode", False)


class DNSRecord(Wire):
    name: str = go("Name", "")
    type: str = go("Type", "")
    value: str = go("Value", "")


class DNSConfig(Wire):
    resolvers: list[Resolver] | None = go("Resolvers", None)
    routes: dict[str, list[Resolver] | None] | None = go("Routes", None)
    fallback_resolvers: list[Resolver] | None = go("FallbackResolvers", None)
    domains: list[str] | None = go("Domains", None)
    proxied: bool = go("Proxied", False)
    cert_domains: list[str] | None = go("CertDomains", None)
    extra_records: list[DNSRecord] | None = go("ExtraRecords", None)
    exit_node_filtered_set: list[str] | None = go("ExitNodeFilteredSet", None)
