"""The map of relays (upstream: tailscale `tailcfg/derpmap.go`; wire reference 1d)."""

from __future__ import annotations

from buri.wire.tailcfg.base import Wire, go


class DERPNode(Wire):
    """One relay. `stun_port` 0 = 3478, -1 = none; `derp_port` 0 = 443; `ipv4`/`ipv6` "none" = do not use that family."""

    name: str = go("Name", "")
    region_id: int = go("RegionID", 0)
    host_name: str = go("HostName", "")
    cert_name: str = go("CertName", "")
    ipv4: str = go("IPv4", "")
    ipv6: str = go("IPv6", "")
    stun_port: int = go("STUNPort", 0)
    stun_only: bool = go("STUNOnly", False)
    derp_port: int = go("DERPPort", 0)
    insecure_for_tests: bool = go("InsecureForTests", False)
    stun_test_ip: str = go("STUNTestIP", "")
    can_port_80: bool = go("CanPort80", False)


class DERPRegion(Wire):
    region_id: int = go("RegionID", 0)
    region_code: str = go("RegionCode", "")
    region_name: str = go("RegionName", "")
    latitude: float = go("Latitude", 0.0)
    longitude: float = go("Longitude", 0.0)
    avoid: bool = go("Avoid", False)
    no_measure_no_home: bool = go("NoMeasureNoHome", False)
    nodes: list[DERPNode] | None = go("Nodes", None)


class DERPHomeParams(Wire):
    region_score: dict[int, float] | None = go("RegionScore", None)


class DERPMap(Wire):
    home_params: DERPHomeParams | None = go("HomeParams", None)
    regions: dict[int, DERPRegion | None] | None = go("Regions", None)
    omit_default_regions: bool = go("omitDefaultRegions", False)

    def code_of(self, region: int) -> str:
        """The short name of a region, its number when it has none here, "" for 0."""
        found = (self.regions or {}).get(region)
        if found is None:
            return str(region) if region else ""
        return found.region_code or str(region)
