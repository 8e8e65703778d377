"""The report of `buri netcheck`, as Tailscale lays it out."""

from __future__ import annotations

from buri.cli.render.columns import go_duration
from buri.wire.localapi import NetcheckReport
from buri.wire.tailcfg.derpmap import DERPMap, DERPRegion


def render_netcheck(report: NetcheckReport, derp_map: DERPMap, *, verbose: bool = False) -> str:
    """The whole report, an empty line first."""
    lines = [
        "",
        "Report:",
        f"\t* Time: {report.now}",
        f"\t* UDP: {_bool(report.udp)}",
        f"\t* IPv4: {'yes, ' + report.global_v4 if report.global_v4 else '(no addr found)'}",
        f"\t* IPv6: {_ipv6(report)}",
        f"\t* MappingVariesByDestIP: {_bool(report.mapping_varies_by_dest_ip)}",
        f"\t* PortMapping: {_port_mapping(report)}",
    ]
    if report.captive_portal is not None:
        lines.append(f"\t* CaptivePortal: {_bool(report.captive_portal)}")
    regions = {number: region for number, region in (derp_map.regions or {}).items() if region is not None}
    if not report.region_latency:
        lines.append("\t* Nearest DERP: unknown (no response to latency probes)")
    else:
        lines.append(f"\t* Nearest DERP: {_nearest(report, regions)}")
        lines.append("\t* DERP latency:")
        lines += [_latency(report, number, regions[number], verbose) for number in _by_latency(report, regions)]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _bool(value: bool | None) -> str:
    return "" if value is None else "true" if value else "false"


def _ipv6(report: NetcheckReport) -> str:
    if report.global_v6:
        return f"yes, {report.global_v6}"
    if report.ipv6:
        return "(no addr found)"
    return "no, but OS has support" if report.os_has_ipv6 else "no, unavailable in OS"


def _port_mapping(report: NetcheckReport) -> str:
    return ", ".join(
        name for name, found in (("UPnP", report.upnp), ("NAT-PMP", report.pmp), ("PCP", report.pcp)) if found
    )


def _nearest(report: NetcheckReport, regions: dict[int, DERPRegion]) -> str:
    if not report.preferred_derp:
        return "[none]"
    region = regions.get(report.preferred_derp)
    return region.region_name if region is not None else f"{report.preferred_derp} (region not found in map)"


def _by_latency(report: NetcheckReport, regions: dict[int, DERPRegion]) -> list[int]:
    unknown = 1 << 62
    return sorted(regions, key=lambda number: (report.region_latency.get(number, unknown), number))


def _latency(report: NetcheckReport, number: int, region: DERPRegion, verbose: bool) -> str:
    took_ns = report.region_latency.get(number)
    latency = "" if took_ns is None else go_duration(took_ns / 1e9, round_to_ms=0.1)
    number_text = f"derp{number}, " if verbose else ""
    return f"\t\t- {region.region_code:>3}: {latency:<7} ({number_text}{region.region_name})"
