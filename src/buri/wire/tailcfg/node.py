"""Node, Hostinfo, NetInfo, users (upstream: tailscale `tailcfg/tailcfg.go`)."""

from __future__ import annotations

from typing import Any

from buri.wire.tailcfg.base import ZERO_TIME, Wire, go

CapMap = dict[str, "list[Any] | None"]


class NetInfo(Wire):
    """What a node knows of its network. `None` in the opt.Bool fields: not known."""

    mapping_varies_by_dest_ip: bool | None = go("MappingVariesByDestIP", None)
    working_ipv6: bool | None = go("WorkingIPv6", None)
    os_has_ipv6: bool | None = go("OSHasIPv6", None)
    working_udp: bool | None = go("WorkingUDP", None)
    working_icmpv4: bool | None = go("WorkingICMPv4", None)
    have_port_map: bool = go("HavePortMap", False)
    upnp: bool | None = go("UPnP", None)
    pmp: bool | None = go("PMP", None)
    pcp: bool | None = go("PCP", None)
    preferred_derp: int = go("PreferredDERP", 0)
    link_type: str = go("LinkType", "")
    derp_latency: dict[str, float] | None = go("DERPLatency", None)
    firewall_mode: str = go("FirewallMode", "")


class Service(Wire):
    proto: str = go("Proto", "")
    port: int = go("Port", 0)
    description: str = go("Description", "")


class Location(Wire):
    """Where a node says it is."""

    country: str = go("Country", "")
    country_code: str = go("CountryCode", "")
    city: str = go("City", "")
    city_code: str = go("CityCode", "")
    latitude: float = go("Latitude", 0.0)
    longitude: float = go("Longitude", 0.0)
    priority: int = go("Priority", 0)


class Hostinfo(Wire):
    """What a node tells of its host. Fields without a use here are ignored."""

    ipn_version: str = go("IPNVersion", "")
    frontend_log_id: str = go("FrontendLogID", "")
    backend_log_id: str = go("BackendLogID", "")
    os: str = go("OS", "")
    os_version: str = go("OSVersion", "")
    container: bool | None = go("Container", None)
    env: str = go("Env", "")
    distro: str = go("Distro", "")
    distro_version: str = go("DistroVersion", "")
    distro_code_name: str = go("DistroCodeName", "")
    app: str = go("App", "")
    desktop: bool | None = go("Desktop", None)
    package: str = go("Package", "")
    device_model: str = go("DeviceModel", "")
    hostname: str = go("Hostname", "")
    shields_up: bool = go("ShieldsUp", False)
    sharee_node: bool = go("ShareeNode", False)
    no_logs_no_support: bool = go("NoLogsNoSupport", False)
    wire_ingress: bool = go("WireIngress", False)
    ingress_enabled: bool = go("IngressEnabled", False)
    allows_update: bool = go("AllowsUpdate", False)
    machine: str = go("Machine", "")
    go_arch: str = go("GoArch", "")
    go_version: str = go("GoVersion", "")
    routable_ips: list[str] | None = go("RoutableIPs", None)
    request_tags: list[str] | None = go("RequestTags", None)
    services: list[Service] | None = go("Services", None)
    net_info: NetInfo | None = go("NetInfo", None)
    ssh_host_keys: list[str] | None = go("sshHostKeys", None)
    cloud: str = go("Cloud", "")
    userspace: bool | None = go("Userspace", None)
    userspace_router: bool | None = go("UserspaceRouter", None)
    app_connector: bool | None = go("AppConnector", None)
    exit_node_id: str = go("ExitNodeID", "")
    location: Location | None = go("Location", None)


class Node(Wire):
    """A node as the netmap shows it; self and peers alike. Keys and prefixes are text."""

    id: int = go("ID", 0)
    stable_id: str = go("StableID", "")
    name: str = go("Name", "")  # FQDN with a trailing dot
    user: int = go("User", 0)
    sharer: int = go("Sharer", 0)
    key: str = go("Key", "")
    key_expiry: str = go("KeyExpiry", ZERO_TIME)
    key_signature: str | None = go("KeySignature", None)  # base64
    machine: str = go("Machine", "")
    disco_key: str = go("DiscoKey", "")
    addresses: list[str] | None = go("Addresses", None)
    allowed_ips: list[str] | None = go("AllowedIPs", None)  # None means "the addresses"
    endpoints: list[str] | None = go("Endpoints", None)
    legacy_derp: str = go("DERP", "")
    home_derp: int = go("HomeDERP", 0)
    hostinfo: Hostinfo | None = go("Hostinfo", None)
    created: str = go("Created", ZERO_TIME)
    cap: int = go("Cap", 0)
    tags: list[str] | None = go("Tags", None)
    primary_routes: list[str] | None = go("PrimaryRoutes", None)
    last_seen: str | None = go("LastSeen", None)
    online: bool | None = go("Online", None)
    machine_authorized: bool = go("MachineAuthorized", False)
    capabilities: list[str] | None = go("Capabilities", None)
    cap_map: CapMap | None = go("CapMap", None)
    unsigned_peer_api_only: bool = go("UnsignedPeerAPIOnly", False)
    expired: bool = go("Expired", False)
    self_masq_ipv4: str | None = go("SelfNodeV4MasqAddrForThisPeer", None)
    self_masq_ipv6: str | None = go("SelfNodeV6MasqAddrForThisPeer", None)
    is_wireguard_only: bool = go("IsWireGuardOnly", False)
    is_jailed: bool = go("IsJailed", False)


class PeerChange(Wire):
    """A patch of one peer; only non-zero members apply."""

    node_id: int = go("NodeID", 0)
    derp_region: int = go("DERPRegion", 0)
    cap: int = go("Cap", 0)
    cap_map: CapMap | None = go("CapMap", None)
    endpoints: list[str] | None = go("Endpoints", None)
    key: str | None = go("Key", None)
    key_signature: str | None = go("KeySignature", None)
    disco_key: str | None = go("DiscoKey", None)
    online: bool | None = go("Online", None)
    last_seen: str | None = go("LastSeen", None)
    key_expiry: str | None = go("KeyExpiry", None)


class User(Wire):
    id: int = go("ID", 0)
    display_name: str = go("DisplayName", "")
    profile_pic_url: str = go("ProfilePicURL", "")
    created: str = go("Created", ZERO_TIME)


class Login(Wire):
    id: int = go("ID", 0)
    provider: str = go("Provider", "")
    login_name: str = go("LoginName", "")
    display_name: str = go("DisplayName", "")
    profile_pic_url: str = go("ProfilePicURL", "")


class UserProfile(Wire):
    id: int = go("ID", 0)
    login_name: str = go("LoginName", "")
    display_name: str = go("DisplayName", "")
    profile_pic_url: str = go("ProfilePicURL", "")
