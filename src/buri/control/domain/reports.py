"""What a node reports of itself by map requests, taken into its record."""

from __future__ import annotations

import msgspec

from buri.control.domain import endpoints
from buri.control.domain.registration import merged_hostinfo, renamed_by_host
from buri.control.edit import Edit
from buri.control.snapshot import NodeRecord, Snapshot
from buri.core.errors import WireError
from buri.core.keys import DiscoPublic
from buri.wire.tailcfg.mapping import MapRequest
from buri.wire.tailcfg.node import Hostinfo

MAX_HOSTINFO_BYTES = 64 * 1024
MAX_CAP = 0xFFFF
MAX_REGION = 0x7FFFFFFF
MAX_PORT = 0xFFFF
MAX_PRIORITY = 0x7FFFFFFF


def take_report(snapshot: Snapshot, node: NodeRecord, request: MapRequest, now_s: float) -> Edit:
    """A lite update: disco key, endpoints, host and home relay are what the node says now. Raises WireError."""
    disco = DiscoPublic.parse(request.disco_key) if request.disco_key else DiscoPublic.zero()
    changed = msgspec.structs.replace(
        node,
        disco=disco if disco else node.disco,
        endpoints=endpoints.accept(request.endpoints),
        cap=checked_cap(request.version) or node.cap,
    )
    edit = Edit(snapshot)
    edit.put_node(_with_host(snapshot, changed, request), now_s)
    return edit


def fill_gaps(snapshot: Snapshot, node: NodeRecord, request: MapRequest, now_s: float) -> Edit:
    """A stream is read-only (its reports may be stale), save for what no update has told yet."""
    edit = Edit(snapshot)
    changed = node
    if not node.disco and request.disco_key:
        changed = msgspec.structs.replace(changed, disco=DiscoPublic.parse(request.disco_key))
    if not node.endpoints and request.endpoints:
        changed = msgspec.structs.replace(changed, endpoints=endpoints.accept(request.endpoints))
    if not node.home_derp and request.hostinfo is not None:
        changed = _with_host(snapshot, changed, request)
    if request.version:
        changed = msgspec.structs.replace(changed, cap=checked_cap(request.version))
    edit.put_node(changed, now_s)
    return edit


def checked_cap(version: int) -> int:
    """A capability version as Noise carries it, 16 bits. Raises WireError."""
    if not 0 <= version <= MAX_CAP:
        raise WireError(f"{version} is no capability version.")
    return version


def check_hostinfo(hostinfo: Hostinfo) -> None:
    """Bound what one node may make the server keep, and show its peers: Go's clients lose their whole netmap to a number
    that does not fit. Raises WireError."""
    size_bytes = len(msgspec.json.encode(hostinfo))
    if size_bytes > MAX_HOSTINFO_BYTES:
        raise WireError(f"a Hostinfo of {size_bytes} bytes is too large; {MAX_HOSTINFO_BYTES} are allowed.")
    for service in hostinfo.services or ():
        if not 0 <= service.port <= MAX_PORT:
            raise WireError(f"a Hostinfo's service has no port {service.port}.")
    if hostinfo.location is not None and abs(hostinfo.location.priority) > MAX_PRIORITY:
        raise WireError("a Hostinfo's Location has a Priority out of range.")


def _with_host(snapshot: Snapshot, node: NodeRecord, request: MapRequest) -> NodeRecord:
    hostinfo = request.hostinfo
    if hostinfo is None:
        return node
    check_hostinfo(hostinfo)
    preferred = 0 if hostinfo.net_info is None else hostinfo.net_info.preferred_derp
    if not 0 <= preferred <= MAX_REGION:
        raise WireError(f"PreferredDERP {preferred} is no region.")
    node = msgspec.structs.replace(
        node,
        hostinfo=merged_hostinfo(node.hostinfo, hostinfo),
        home_derp=preferred or node.home_derp,
    )
    return renamed_by_host(snapshot, node)
