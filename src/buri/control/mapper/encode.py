"""Records as the netmap's JSON: self, peer, patch, profile (wire reference 1a), and the frames around them."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Mapping

import msgspec

from buri.control.changes import Fields
from buri.control.edit import PUBLIC_HOSTINFO
from buri.control.snapshot import TAGGED_USER_ID, TAGGED_USER_NAME, NodeRecord, UserRecord
from buri.policy.compiler import PeerView, SelfView
from buri.wire.tailcfg.base import format_time
from buri.wire.tailcfg.dns import DNSConfig
from buri.wire.tailcfg.node import Hostinfo, Login, Node, PeerChange, User, UserProfile

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LEVEL = 1
FILE_SHARING = "https://tailscale.com/cap/file-sharing"
CACHE_NETMAPS = "cache-network-maps"  # a client starts from its last netmap while we are away

json = msgspec.json.encode


def squeeze(text: bytes) -> bytes:
    """One complete zstd frame."""
    return zstd.compress(text, LEVEL)


def framed(frames: bytes) -> bytes:
    """One map message: little-endian length, then one or more zstd frames that decode as one text."""
    return struct.pack("<I", len(frames)) + frames


KEEPALIVE = framed(squeeze(b'{"KeepAlive":true}'))


def seconds(wall_s: float) -> str:
    """A time to the second: peers need no more, and equal texts compress away."""
    return format_time(float(int(wall_s)))


def owner_id(node: NodeRecord) -> int:
    return TAGGED_USER_ID if node.user_id is None else node.user_id


def _node(node: NodeRecord, base_domain: str, now_s: float, hostinfo: Hostinfo, view: PeerView | SelfView) -> Node:
    return Node(
        id=node.id,
        stable_id=node.stable_id,
        name=f"{node.name}.{base_domain}.",
        user=owner_id(node),
        key=str(node.key),
        key_expiry=seconds(node.expiry_s),
        disco_key=str(node.disco),
        addresses=list(view.addresses),
        allowed_ips=list(view.allowed_ips),
        primary_routes=list(view.primary_routes) or None,
        cap_map=view.cap_map or None,
        endpoints=[str(endpoint) for endpoint in node.endpoints] or None,
        home_derp=node.home_derp,
        hostinfo=hostinfo,
        created=seconds(node.created_s),
        cap=node.cap,
        tags=list(node.tags) or None,
        last_seen=None if node.online else seconds(node.last_seen_s),
        online=node.online,
        machine_authorized=node.authorized,
        expired=node.expired(now_s),
    )


def peer_json(node: NodeRecord, base_domain: str, now_s: float, view: PeerView) -> bytes:
    """A node as a peer is shown it."""
    public = Hostinfo(**{name: getattr(node.hostinfo, name) for name in PUBLIC_HOSTINFO})
    return json(_node(node, base_domain, now_s, public, view))


def self_node(node: NodeRecord, base_domain: str, now_s: float, view: SelfView) -> Node:
    """A node as it is shown itself: with its capabilities, those of the policy and those that all have."""
    shown = _node(node, base_domain, now_s, node.hostinfo, view)
    shown.machine = str(node.machine)
    shown.cap_map = {FILE_SHARING: [], CACHE_NETMAPS: [], **view.cap_map}
    return shown


def filters_patch(old: Mapping[str, bytes], new: Mapping[str, bytes]) -> bytes:
    """What of a packet filter's named rules changed, as PacketFilters."""
    gone = (b'"%s":null' % name.encode() for name in old if name not in new)
    come = (b'"%s":[%s]' % (name.encode(), rule) for name, rule in new.items() if name not in old)
    return b"{" + b",".join((*gone, *come)) + b"}"


def filters_whole(filters: Mapping[str, bytes]) -> bytes:
    """A whole packet filter as PacketFilters, whatever the reader had before."""
    named = (b'"%s":[%s]' % (name.encode(), rule) for name, rule in filters.items())
    return b"{" + b",".join((b'"*":null', *named)) + b"}"


def patch_json(node: NodeRecord, fields: int) -> bytes:
    """The narrowest word on a known peer."""
    patch = PeerChange(node_id=node.id)
    if fields & Fields.ENDPOINTS:
        patch.endpoints = [str(endpoint) for endpoint in node.endpoints]
    if fields & Fields.HOME_DERP:
        patch.derp_region = node.home_derp
    if fields & Fields.DISCO:
        patch.disco_key = str(node.disco)
    if fields & Fields.KEY_EXPIRY:
        patch.key_expiry = seconds(node.expiry_s)
    if fields & Fields.ONLINE:
        patch.online = node.online
        if not node.online:
            patch.last_seen = seconds(node.last_seen_s)
    return json(patch)


def profile(user: UserRecord) -> UserProfile:
    return UserProfile(id=user.id, login_name=user.name, display_name=user.display_name, profile_pic_url=user.picture)


TAGGED_PROFILE = UserProfile(id=TAGGED_USER_ID, login_name=TAGGED_USER_NAME, display_name="Tagged Devices")


def user_and_login(user: UserRecord | None) -> tuple[User, Login]:
    """Whom a register answer says that the node belongs to."""
    if user is None:
        shown = TAGGED_PROFILE
        created = 0.0
    else:
        shown, created = profile(user), user.created_s
    return (
        User(id=shown.id, display_name=shown.display_name, created=seconds(created)),
        Login(id=shown.id, provider="buri", login_name=shown.login_name, display_name=shown.display_name),
    )


def dns_config(base_domain: str) -> DNSConfig:
    """MagicDNS under the base domain; other names are the node's own resolvers' affair."""
    return DNSConfig(proxied=True, domains=[base_domain])


def joined(parts: Iterable[bytes]) -> bytes:
    return b"[" + b",".join(parts) + b"]"
