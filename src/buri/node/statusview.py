"""The node as `status`, `whois` and `netcheck` show it: the agent's facts in LocalAPI's shapes (wire reference 1g)."""

from __future__ import annotations

import time
from ipaddress import ip_address

from buri.core.addresses import IPAddress
from buri.core.keys import NodePublic
from buri.engine import port
from buri.machine.mapdelta import Netmap
from buri.machine.netcheck import NetReport
from buri.machine.paths.values import PathInfo
from buri.node import hostinfo
from buri.node.agent import Agent
from buri.node.reconciler import addresses_of, is_expired, key_of
from buri.wire.localapi import NetcheckReport, PeerStatus, Status, TailnetStatus
from buri.wire.tailcfg.base import ZERO_TIME, format_time
from buri.wire.tailcfg.node import Node, UserProfile

NANOSECONDS = 1_000_000_000


def status(agent: Agent, *, peers: bool = True) -> Status:
    """All that `status` shows; `peers` False leaves the peers and their users out."""
    netmap = agent.netmap
    shown = Status(
        version=hostinfo.IPN_VERSION,
        backend_state=agent.state.label,
        have_node_key=agent.node_key is not None,
        auth_url=agent.auth_url,
        self_node=_self(agent),
        health=health(agent),
    )
    if netmap is None:
        return shown
    suffix = magic_dns_suffix(netmap)
    shown.tailscale_ips = [str(address) for address in addresses_of(netmap.self_node)]
    shown.magic_dns_suffix = suffix
    shown.current_tailnet = TailnetStatus(
        name=netmap.domain, magic_dns_suffix=suffix, magic_dns_enabled=netmap.dns.proxied
    )
    shown.cert_domains = netmap.dns.cert_domains
    shown.client_version = netmap.client_version
    shown.user = {netmap.self_node.user: user_of(netmap, netmap.self_node)}
    if peers:
        stats = {found.key: found for found in agent.underlay.engine.stats().peers}
        keyed = ((node, key_of(node)) for node in netmap.peers.values())
        shown.peer = {node.key: _peer(agent, netmap, node, key, stats) for node, key in keyed if key is not None}
        shown.user |= netmap.users
    return shown


def health(agent: Agent) -> list[str]:
    """What is wrong now, a sentence each."""
    found = [agent.trouble] if agent.trouble and agent.prefs.want_running else []
    if agent.netmap is None:
        return found
    found += [said for said in (agent.clock.warning, agent.keys.warning, agent.names.trouble) if said]
    relays = agent.netmap.derp_map
    statuses = agent.underlay.relays.status()
    found += [f"Relay {relays.code_of(relay.region)}: {relay.problem}." for relay in statuses if relay.problem]
    return found + list(agent.netmap.health)


def user_of(netmap: Netmap, node: Node) -> UserProfile:
    """Whose node this is, as far as we were told."""
    return netmap.users.get(node.user) or UserProfile(id=node.user)


def magic_dns_suffix(netmap: Netmap) -> str:
    """The tailnet's DNS suffix: this node's own name without its first label."""
    return netmap.self_node.name.rstrip(".").partition(".")[2]


def _self(agent: Agent) -> PeerStatus:
    netmap = agent.netmap
    key = agent.node_key
    if netmap is None:
        shown = PeerStatus(host_name=hostinfo.host_name(agent.prefs.hostname), os="linux")
    else:
        shown = _node(netmap, netmap.self_node, agent.server_wall_s())
        shown.relay = netmap.derp_map.code_of(agent.underlay.relays.home)
    shown.public_key = str(key) if key is not None else str(NodePublic.zero())
    shown.host_name = hostinfo.host_name(agent.prefs.hostname)
    shown.addrs = [str(endpoint.address) for endpoint in agent.underlay.endpoints]
    shown.online = agent.control_connected
    shown.in_engine = False
    return shown


def _node(netmap: Netmap, node: Node, server_wall_s: float) -> PeerStatus:
    info = node.hostinfo
    return PeerStatus(
        id=node.stable_id,
        node_id=node.id,
        public_key=node.key,
        host_name=info.hostname if info is not None else "",
        dns_name=node.name,
        os=info.os if info is not None else "",
        user_id=node.user,
        tailscale_ips=[str(address) for address in addresses_of(node)],
        allowed_ips=node.allowed_ips,
        tags=node.tags,
        primary_routes=node.primary_routes,
        relay=netmap.derp_map.code_of(node.home_derp),
        created=node.created,
        last_seen=node.last_seen or ZERO_TIME,
        online=bool(node.online),
        capabilities=node.capabilities,
        cap_map=node.cap_map,
        sharee_node=bool(info is not None and info.sharee_node),
        in_network_map=True,
        expired=is_expired(node, server_wall_s),
        key_expiry=None if node.key_expiry == ZERO_TIME else node.key_expiry,
        exit_node_option={"0.0.0.0/0", "::/0"} <= set(node.allowed_ips or ()),
    )


def _peer(
    agent: Agent, netmap: Netmap, node: Node, key: NodePublic, stats: dict[NodePublic, port.PeerStats]
) -> PeerStatus:
    shown = _node(netmap, node, agent.server_wall_s())
    shown.addrs = node.endpoints
    path: PathInfo | None = agent.underlay.path_info(key)
    if path is not None:
        shown.in_magic_sock = True
        shown.active = path.active
        shown.cur_addr = "" if path.address is None else str(path.address)
        shown.relay = netmap.derp_map.code_of(path.relay_region or node.home_derp)
        shown.why_relayed = path.why_relayed
    counted = stats.get(key)
    if counted is not None:
        shown.in_engine = True
        shown.rx_bytes, shown.tx_bytes = counted.rx_bytes, counted.tx_bytes
        shown.last_handshake = _ago(counted.handshake_age_s)
        shown.last_write = _ago(counted.tx_age_s)
    return shown


def _ago(age_s: float | None) -> str:
    return ZERO_TIME if age_s is None else format_time(time.time() - age_s)


def netcheck_report(report: NetReport, *, home: int, os_has_ipv6: bool) -> NetcheckReport:
    """A netcheck as `netcheck --format=json` prints it; latencies in nanoseconds."""

    def nanoseconds(latencies: dict[int, float]) -> dict[int, int]:
        return {region: int(seconds * NANOSECONDS) for region, seconds in latencies.items()}

    return NetcheckReport(
        now=format_time(time.time()),
        udp=report.udp,
        ipv4=report.ipv4,
        ipv6=report.ipv6,
        ipv4_can_send=report.ipv4,
        ipv6_can_send=report.ipv6,
        os_has_ipv6=os_has_ipv6,
        mapping_varies_by_dest_ip=report.hard_nat,
        preferred_derp=home,
        region_latency=nanoseconds(report.region_latency_s),
        region_v4_latency=nanoseconds(report.region_latency_ipv4_s),
        region_v6_latency=nanoseconds(report.region_latency_ipv6_s),
        global_v4="" if report.global_ipv4 is None else str(report.global_ipv4),
        global_v6="" if report.global_ipv6 is None else str(report.global_ipv6),
    )


def find_node(netmap: Netmap, text: str) -> Node | None:
    """The node, this one included, that has an address ("IP" or "IP:PORT") or a node key; None when there is none."""
    nodes = (netmap.self_node, *netmap.peers.values())
    if text.startswith("nodekey:"):
        return next((node for node in nodes if node.key == text), None)
    address = asked_address(text)
    return None if address is None else next((node for node in nodes if address in addresses_of(node)), None)


def asked_address(text: str) -> IPAddress | None:
    """The address in "IP" or "IP:PORT"; None when there is none."""
    try:
        return ip_address(text)
    except ValueError:
        try:
            return ip_address(text.rpartition(":")[0].strip("[]"))
        except ValueError:
            return None
