"""What `buri` and `burid` say to each other: LocalAPI's JSON (wire reference 1g; upstream: `ipn`, `ipn/ipnstate`).

Names and shapes are Tailscale's, so that its own command line reads our daemon and ours reads its daemon. Fields of
ours are additions only. Unlike tailcfg, these structs write every field: scripts read them with `jq`. Only `Notify`
leaves out what it does not say. A zero address or prefix is "", a zero time `ZERO_TIME`, a key text, a duration
nanoseconds.
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from buri.wire.tailcfg.base import ZERO_TIME, go
from buri.wire.tailcfg.derpmap import DERPMap
from buri.wire.tailcfg.dns import DNSConfig
from buri.wire.tailcfg.mapping import ClientVersion, PingOutcome
from buri.wire.tailcfg.node import CapMap, Node, UserProfile

CAPABILITY_VERSION = 145
HOST = "local-tailscaled.sock"  # the only Host header a LocalAPI takes
BASE_PATH = "/localapi/v0/"
ZERO_NODE_KEY = "nodekey:" + "0" * 64
DEFAULT_SOCKET = "/run/buri/burid.sock"


class Local(msgspec.Struct, kw_only=True):
    """Base of every struct here."""


class BackendState(enum.IntEnum):
    """Numbers as on the notify bus; `label` is the name in status."""

    NO_STATE = 0
    IN_USE_OTHER_USER = 1
    NEEDS_LOGIN = 2
    NEEDS_MACHINE_AUTH = 3
    STOPPED = 4
    STARTING = 5
    RUNNING = 6

    @property
    def label(self) -> str:
        """Tailscale's word for it."""
        return "".join(word.capitalize() for word in self.name.split("_"))


# ---- status --------------------------------------------------------------------------------------------------------


class PeerStatus(Local):
    """A node as `status` shows it, this one included. `cur_addr` is set when direct, `relay` is a region's code."""

    id: str = go("ID", "")
    node_id: int = go("NodeID", 0)
    public_key: str = go("PublicKey", ZERO_NODE_KEY)
    host_name: str = go("HostName", "")
    dns_name: str = go("DNSName", "")
    os: str = go("OS", "")
    user_id: int = go("UserID", 0)
    tailscale_ips: list[str] | None = go("TailscaleIPs", None)
    allowed_ips: list[str] | None = go("AllowedIPs", None)
    tags: list[str] | None = go("Tags", None)
    primary_routes: list[str] | None = go("PrimaryRoutes", None)
    addrs: list[str] | None = go("Addrs", None)
    cur_addr: str = go("CurAddr", "")
    relay: str = go("Relay", "")
    peer_relay: str = go("PeerRelay", "")
    rx_bytes: int = go("RxBytes", 0)
    tx_bytes: int = go("TxBytes", 0)
    created: str = go("Created", ZERO_TIME)
    last_write: str = go("LastWrite", ZERO_TIME)
    last_seen: str = go("LastSeen", ZERO_TIME)
    last_handshake: str = go("LastHandshake", ZERO_TIME)
    online: bool = go("Online", False)
    exit_node: bool = go("ExitNode", False)
    exit_node_option: bool = go("ExitNodeOption", False)
    active: bool = go("Active", False)
    peer_api_url: list[str] | None = go("PeerAPIURL", None)
    taildrop_target: int = go("TaildropTarget", 0)
    no_file_sharing_reason: str = go("NoFileSharingReason", "")
    capabilities: list[str] | None = go("Capabilities", None)
    cap_map: CapMap | None = go("CapMap", None)
    ssh_host_keys: list[str] | None = go("sshHostKeys", None)
    sharee_node: bool = go("ShareeNode", False)
    in_network_map: bool = go("InNetworkMap", False)
    in_magic_sock: bool = go("InMagicSock", False)
    in_engine: bool = go("InEngine", False)
    expired: bool = go("Expired", False)
    key_expiry: str | None = go("KeyExpiry", None)
    location: dict[str, Any] | None = go("Location", None)
    why_relayed: str = go("WhyRelayed", "")  # ours: a few words, "" when direct or not known


class ExitNodeStatus(Local):
    id: str = go("ID", "")
    online: bool = go("Online", False)
    tailscale_ips: list[str] | None = go("TailscaleIPs", None)


class TailnetStatus(Local):
    name: str = go("Name", "")
    magic_dns_suffix: str = go("MagicDNSSuffix", "")
    magic_dns_enabled: bool = go("MagicDNSEnabled", False)


class Status(Local):
    """All that `status --json` prints. `self_node` is never absent: Tailscale's command line relies on it."""

    version: str = go("Version", "")
    tun: bool = go("TUN", True)
    backend_state: str = go("BackendState", "NoState")
    have_node_key: bool = go("HaveNodeKey", False)
    auth_url: str = go("AuthURL", "")
    tailscale_ips: list[str] | None = go("TailscaleIPs", None)
    self_node: PeerStatus = go("Self", factory=PeerStatus)
    exit_node_status: ExitNodeStatus | None = go("ExitNodeStatus", None)
    health: list[str] | None = go("Health", None)
    magic_dns_suffix: str = go("MagicDNSSuffix", "")
    current_tailnet: TailnetStatus | None = go("CurrentTailnet", None)
    cert_domains: list[str] | None = go("CertDomains", None)
    extra_records: list[dict[str, Any]] | None = go("ExtraRecords", None)
    peer: dict[str, PeerStatus] | None = go("Peer", None)  # by node key
    user: dict[int, UserProfile] | None = go("User", None)
    client_version: ClientVersion | None = go("ClientVersion", None)


# ---- preferences ---------------------------------------------------------------------------------------------------


class AutoUpdatePrefs(Local):
    check: bool = go("Check", False)
    apply: bool | None = go("Apply", None)


class AppConnectorPrefs(Local):
    advertise: bool = go("Advertise", False)


class Persist(Local):
    """Who is logged in; the API never carries the keys that upstream keeps beside it."""

    user_profile: UserProfile = go("UserProfile", factory=UserProfile)
    node_id: str = go("NodeID", "")


class Prefs(Local):
    """What a user chose. The defaults are those of a node that was never configured."""

    control_url: str = go("ControlURL", "")
    route_all: bool = go("RouteAll", False)  # --accept-routes
    exit_node_id: str = go("ExitNodeID", "")
    exit_node_ip: str = go("ExitNodeIP", "")
    auto_exit_node: str = go("AutoExitNode", "")
    internal_exit_node_prior: str = go("InternalExitNodePrior", "")
    exit_node_allow_lan_access: bool = go("ExitNodeAllowLANAccess", False)
    corp_dns: bool = go("CorpDNS", True)  # --accept-dns
    run_ssh: bool = go("RunSSH", False)
    run_web_client: bool = go("RunWebClient", False)
    want_running: bool = go("WantRunning", False)
    logged_out: bool = go("LoggedOut", False)
    shields_up: bool = go("ShieldsUp", False)
    advertise_tags: list[str] | None = go("AdvertiseTags", None)
    hostname: str = go("Hostname", "")
    notepad_urls: bool = go("NotepadURLs", False)
    force_daemon: bool = go("ForceDaemon", False)
    advertise_routes: list[str] | None = go("AdvertiseRoutes", None)
    advertise_services: list[str] | None = go("AdvertiseServices", None)
    sync: bool | None = go("Sync", None)
    no_snat: bool = go("NoSNAT", False)
    no_stateful_filtering: bool | None = go("NoStatefulFiltering", None)
    netfilter_mode: int = go("NetfilterMode", 2)  # 0 off, 1 nodivert, 2 on
    operator_user: str = go("OperatorUser", "")
    profile_name: str = go("ProfileName", "")
    auto_update: AutoUpdatePrefs = go("AutoUpdate", factory=AutoUpdatePrefs)
    app_connector: AppConnectorPrefs = go("AppConnector", factory=AppConnectorPrefs)
    posture_checking: bool = go("PostureChecking", False)
    netfilter_kind: str = go("NetfilterKind", "")
    remote_config: bool = go("RemoteConfig", False)
    drive_shares: list[dict[str, Any]] | None = go("DriveShares", None)
    relay_server_port: int | None = go("RelayServerPort", None)
    relay_server_static_endpoints: list[str] | None = go("RelayServerStaticEndpoints", None)
    config: Persist | None = go("Config", None)


class AutoUpdateMask(Local):
    check_set: bool = go("CheckSet", False)
    apply_set: bool = go("ApplySet", False)


class MaskedPrefs(Prefs):
    """An edit of Prefs: of a preference `x`, only those with `x_set` count."""

    control_url_set: bool = go("ControlURLSet", False)
    route_all_set: bool = go("RouteAllSet", False)
    exit_node_id_set: bool = go("ExitNodeIDSet", False)
    exit_node_ip_set: bool = go("ExitNodeIPSet", False)
    auto_exit_node_set: bool = go("AutoExitNodeSet", False)
    exit_node_allow_lan_access_set: bool = go("ExitNodeAllowLANAccessSet", False)
    corp_dns_set: bool = go("CorpDNSSet", False)
    run_ssh_set: bool = go("RunSSHSet", False)
    run_web_client_set: bool = go("RunWebClientSet", False)
    want_running_set: bool = go("WantRunningSet", False)
    logged_out_set: bool = go("LoggedOutSet", False)
    shields_up_set: bool = go("ShieldsUpSet", False)
    advertise_tags_set: bool = go("AdvertiseTagsSet", False)
    hostname_set: bool = go("HostnameSet", False)
    notepad_urls_set: bool = go("NotepadURLsSet", False)
    force_daemon_set: bool = go("ForceDaemonSet", False)
    advertise_routes_set: bool = go("AdvertiseRoutesSet", False)
    advertise_services_set: bool = go("AdvertiseServicesSet", False)
    sync_set: bool = go("SyncSet", False)
    no_snat_set: bool = go("NoSNATSet", False)
    no_stateful_filtering_set: bool = go("NoStatefulFilteringSet", False)
    netfilter_mode_set: bool = go("NetfilterModeSet", False)
    operator_user_set: bool = go("OperatorUserSet", False)
    profile_name_set: bool = go("ProfileNameSet", False)
    auto_update_set: AutoUpdateMask = go("AutoUpdateSet", factory=AutoUpdateMask)
    app_connector_set: bool = go("AppConnectorSet", False)
    posture_checking_set: bool = go("PostureCheckingSet", False)
    netfilter_kind_set: bool = go("NetfilterKindSet", False)
    remote_config_set: bool = go("RemoteConfigSet", False)
    drive_shares_set: bool = go("DriveSharesSet", False)
    relay_server_port_set: bool = go("RelayServerPortSet", False)
    relay_server_static_endpoints_set: bool = go("RelayServerStaticEndpointsSet", False)

    def names_set(self) -> tuple[str, ...]:
        """The preferences this edit changes, `auto_update` among them when any part of it is."""
        names = [name for name in Prefs.__struct_fields__ if getattr(self, f"{name}_set", False) is True]
        if self.auto_update_set.check_set or self.auto_update_set.apply_set:
            names.append("auto_update")
        return tuple(names)

    def apply_to(self, prefs: Prefs) -> Prefs:
        """`prefs` with this edit made; the old value stays as it was."""
        changes = {name: getattr(self, name) for name in self.names_set()}
        if "auto_update" in changes:
            check = self.auto_update.check if self.auto_update_set.check_set else prefs.auto_update.check
            apply = self.auto_update.apply if self.auto_update_set.apply_set else prefs.auto_update.apply
            changes["auto_update"] = AutoUpdatePrefs(check=check, apply=apply)
        return msgspec.structs.replace(prefs, **changes)


def mask(**changes: Any) -> MaskedPrefs:
    """An edit that sets exactly these preferences (by their names in `Prefs`)."""
    flags: dict[str, Any] = {f"{name}_set": True for name in changes}
    return MaskedPrefs(**changes, **flags)


class Options(Local):
    """How to start: preferences to take whole first, and a key to log in with."""

    frontend_log_id: str = go("FrontendLogID", "")
    update_prefs: Prefs | None = go("UpdatePrefs", None)
    auth_key: str = go("AuthKey", "")


# ---- the notify bus ------------------------------------------------------------------------------------------------


class NotifyMask(enum.IntFlag):
    """What a watcher wants; the Initial bits bring one first Notify with the state as it is."""

    ENGINE_UPDATES = 1
    INITIAL_STATE = 2
    INITIAL_PREFS = 4
    INITIAL_NETMAP = 8
    NO_PRIVATE_KEYS = 16
    INITIAL_DRIVE_SHARES = 32
    INITIAL_OUTGOING_FILES = 64
    INITIAL_HEALTH = 128
    RATE_LIMIT = 256
    HEALTH_ACTIONS = 512
    INITIAL_SUGGESTED_EXIT_NODE = 1024
    INITIAL_CLIENT_VERSION = 2048
    PEER_CHANGES = 4096
    NO_NETMAP = 8192
    INITIAL_STATUS = 16384
    PEER_PATCHES = 32768


class Empty(Local):
    """`{}`: that it is there says it all."""


class EngineStatus(Local):
    r_bytes: int = go("RBytes", 0)
    w_bytes: int = go("WBytes", 0)
    num_live: int = go("NumLive", 0)
    live_derps: int = go("LiveDERPs", 0)
    live_peers: dict[str, dict[str, Any]] = go("LivePeers", factory=dict)


class NetworkMap(Local):
    """The netmap as `debug netmap` shows it."""

    self_node: Node = go("SelfNode", factory=Node)
    node_key: str = go("NodeKey", ZERO_NODE_KEY)
    peers: list[Node] = go("Peers", factory=list)
    dns: DNSConfig = go("DNS", factory=DNSConfig)
    derp_map: DERPMap | None = go("DERPMap", None)
    domain: str = go("Domain", "")
    user_profiles: dict[int, UserProfile] = go("UserProfiles", factory=dict)


class UnhealthyState(Local):
    warnable_code: str = go("WarnableCode", "")
    severity: str = go("Severity", "medium")
    title: str = go("Title", "")
    text: str = go("Text", "")
    impacts_connectivity: bool = go("ImpactsConnectivity", False)


class HealthState(Local):
    warnings: dict[str, UnhealthyState] | None = go("Warnings", None)


class Notify(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One message of the bus; what is None is not said."""

    version: str = go("Version", "")
    session_id: str = go("SessionID", "")
    err_message: str | None = go("ErrMessage", None)
    login_finished: Empty | None = go("LoginFinished", None)
    state: BackendState | None = go("State", None)
    prefs: Prefs | None = go("Prefs", None)
    self_change: Node | None = go("SelfChange", None)
    initial_status: Status | None = go("InitialStatus", None)
    net_map: NetworkMap | None = go("NetMap", None)
    peers_changed: list[Node] | None = go("PeersChanged", None)
    peers_removed: list[int] | None = go("PeersRemoved", None)
    user_profiles: dict[int, UserProfile] | None = go("UserProfiles", None)
    engine: EngineStatus | None = go("Engine", None)
    browse_to_url: str | None = go("BrowseToURL", None)
    client_version: ClientVersion | None = go("ClientVersion", None)
    health: HealthState | None = go("Health", None)


# ---- answers of single calls ---------------------------------------------------------------------------------------


class PingResult(PingOutcome, omit_defaults=False):
    """What the LocalAPI's `ping` answers; every member is always there, as in upstream's ipnstate.PingResult."""

    peer_api_url: str = go("PeerAPIURL", "")
    lost: bool = go("BuriLost", False)  # ours: not answered in the caller's time, and `err` says why; try again


class WhoIsResponse(Local):
    node: Node = go("Node", factory=Node)
    user_profile: UserProfile = go("UserProfile", factory=UserProfile)
    cap_map: CapMap | None = go("CapMap", None)


class NetworkProfile(Local):
    magic_dns_name: str = go("MagicDNSName", "")
    domain_name: str = go("DomainName", "")
    display_name: str = go("DisplayName", "")


class LoginProfile(Local):
    """An account on a control server; ours keeps one."""

    id: str = go("ID", "")
    name: str = go("Name", "")
    network_profile: NetworkProfile = go("NetworkProfile", factory=NetworkProfile)
    key: str = go("Key", "")
    user_profile: UserProfile = go("UserProfile", factory=UserProfile)
    node_id: str = go("NodeID", "")
    local_user_id: str = go("LocalUserID", "")
    control_url: str = go("ControlURL", "")


class NetcheckReport(Local):
    """What `netcheck --format=json` prints (upstream: `net/netcheck.Report`). Latencies in ns by region ID."""

    now: str = go("Now", ZERO_TIME)
    udp: bool = go("UDP", False)
    ipv6: bool = go("IPv6", False)
    ipv4: bool = go("IPv4", False)
    ipv6_can_send: bool = go("IPv6CanSend", False)
    ipv4_can_send: bool = go("IPv4CanSend", False)
    os_has_ipv6: bool = go("OSHasIPv6", False)
    icmpv4: bool = go("ICMPv4", False)
    mapping_varies_by_dest_ip: bool | None = go("MappingVariesByDestIP", None)
    upnp: bool | None = go("UPnP", None)
    pmp: bool | None = go("PMP", None)
    pcp: bool | None = go("PCP", None)
    preferred_derp: int = go("PreferredDERP", 0)
    region_latency: dict[int, int] = go("RegionLatency", factory=dict)
    region_v4_latency: dict[int, int] = go("RegionV4Latency", factory=dict)
    region_v6_latency: dict[int, int] = go("RegionV6Latency", factory=dict)
    global_v4: str = go("GlobalV4", "")
    global_v6: str = go("GlobalV6", "")
    captive_portal: bool | None = go("CaptivePortal", None)


class ErrorReply(Local):
    """The body of `check-prefs`, and of refusals that are JSON; "" is "no error"."""

    error: str = go("Error", "")
