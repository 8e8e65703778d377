"""The map exchange (upstream: tailscale `tailcfg.MapRequest`, `tailcfg.MapResponse`; wire reference 1a).

In a MapResponse the zero value means "unchanged since the last message": UNSET here. An empty list is a statement.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from buri.wire.tailcfg.base import Wire, go
from buri.wire.tailcfg.derpmap import DERPMap
from buri.wire.tailcfg.dns import DNSConfig
from buri.wire.tailcfg.filter import FilterRule
from buri.wire.tailcfg.node import Hostinfo, Node, PeerChange, UserProfile

# MapRequest.EndpointTypes
ENDPOINT_UNKNOWN, ENDPOINT_LOCAL, ENDPOINT_STUN, ENDPOINT_PORT_MAPPED = 0, 1, 2, 3
ENDPOINT_STUN_LOCAL_PORT, ENDPOINT_EXPLICIT = 4, 5


class MapRequest(Wire):
    version: int = go("Version", 0)
    compress: str = go("Compress", "")
    keep_alive: bool = go("KeepAlive", False)
    node_key: str = go("NodeKey", "")
    disco_key: str = go("DiscoKey", "")
    stream: bool = go("Stream", False)
    hostinfo: Hostinfo | None = go("Hostinfo", None)
    map_session_handle: str = go("MapSessionHandle", "")
    map_session_seq: int = go("MapSessionSeq", 0)
    endpoints: list[str] | None = go("Endpoints", None)
    endpoint_types: list[int] | None = go("EndpointTypes", None)
    read_only: bool = go("ReadOnly", False)
    omit_peers: bool = go("OmitPeers", False)
    debug_flags: list[str] | None = go("DebugFlags", None)
    tka_head: str = go("TKAHead", "")


class PingRequest(Wire):
    url: str = go("URL", "")
    url_is_noise: bool = go("URLIsNoise", False)
    log: bool = go("Log", False)
    types: str = go("Types", "")
    ip: str = go("IP", "")
    payload: str | None = go("Payload", None)


class PingOutcome(Wire):
    """One pong, or why there was none (`err`): `endpoint` when it came direct, else the relay's region."""

    ip: str = go("IP", "")
    node_ip: str = go("NodeIP", "")
    node_name: str = go("NodeName", "")
    err: str = go("Err", "")
    latency_seconds: float = go("LatencySeconds", 0.0)
    endpoint: str = go("Endpoint", "")
    peer_relay: str = go("PeerRelay", "")
    derp_region_id: int = go("DERPRegionID", 0)
    derp_region_code: str = go("DERPRegionCode", "")
    peer_api_port: int = go("PeerAPIPort", 0)
    is_local_ip: bool = go("IsLocalIP", False)


class PingResponse(PingOutcome):
    """What is posted to PingRequest's URL."""

    type: str = go("Type", "")


class Debug(Wire):
    sleep_seconds: float = go("SleepSeconds", 0.0)
    disable_log_tail: bool = go("DisableLogTail", False)
    exit: int | None = go("Exit", None)


class ClientVersion(Wire):
    running_latest: bool = go("RunningLatest", False)
    latest_version: str = go("LatestVersion", "")
    urgent_security_update: bool = go("UrgentSecurityUpdate", False)
    notify: bool = go("Notify", False)
    notify_url: str = go("NotifyURL", "")
    notify_text: str = go("NotifyText", "")


class DisplayMessage(Wire):
    title: str = go("Title", "")
    text: str = go("Text", "")
    severity: str = go("Severity", "")
    impacts_connectivity: bool = go("ImpactsConnectivity", False)


class MapResponse(Wire):
    map_session_handle: str = go("MapSessionHandle", "")
    seq: int = go("Seq", 0)
    keep_alive: bool = go("KeepAlive", False)
    ping_request: PingRequest | UnsetType | None = go("PingRequest", UNSET)
    pop_browser_url: str = go("PopBrowserURL", "")
    node: Node | UnsetType | None = go("Node", UNSET)
    derp_map: DERPMap | UnsetType | None = go("DERPMap", UNSET)
    peers: list[Node] | UnsetType | None = go("Peers", UNSET)
    peers_changed: list[Node] | UnsetType | None = go("PeersChanged", UNSET)
    peers_removed: list[int] | UnsetType | None = go("PeersRemoved", UNSET)
    peers_changed_patch: list[PeerChange] | UnsetType | None = go("PeersChangedPatch", UNSET)
    peer_seen_change: dict[int, bool] | UnsetType | None = go("PeerSeenChange", UNSET)
    online_change: dict[int, bool] | UnsetType | None = go("OnlineChange", UNSET)
    dns_config: DNSConfig | UnsetType | None = go("DNSConfig", UNSET)
    domain: str = go("Domain", "")
    collect_services: bool | UnsetType | None = go("CollectServices", UNSET)
    packet_filter: list[FilterRule] | UnsetType | None = go("PacketFilter", UNSET)
    packet_filters: dict[str, list[FilterRule] | None] | UnsetType | None = go("PacketFilters", UNSET)
    user_profiles: list[UserProfile] | UnsetType | None = go("UserProfiles", UNSET)
    health: list[str] | UnsetType | None = go("Health", UNSET)
    display_messages: dict[str, DisplayMessage | None] | UnsetType | None = go("DisplayMessages", UNSET)
    ssh_policy: Any = go("SSHPolicy", UNSET)
    control_time: str | UnsetType | None = go("ControlTime", UNSET)
    debug: Debug | UnsetType | None = go("Debug", UNSET)
    client_version: ClientVersion | UnsetType | None = go("ClientVersion", UNSET)


def encode(message: Any) -> bytes:
    """Any tailcfg struct as Go reads it."""
    return msgspec.json.encode(message)
