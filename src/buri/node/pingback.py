"""Answering the control server's ping requests (wire reference 1a, "PingRequest")."""

from __future__ import annotations

import logging
from ipaddress import ip_address
from typing import TYPE_CHECKING

import msgspec

from buri.core.addresses import IPAddress
from buri.core.errors import BuriError, StateError
from buri.core.keys import NodePublic
from buri.machine.paths.values import PingDone
from buri.netio.streams import http
from buri.node.reconciler import addresses_of
from buri.node.router.linux import MARK
from buri.wire.tailcfg.base import Wire, go
from buri.wire.tailcfg.mapping import PingRequest
from buri.wire.tailcfg.node import Node

if TYPE_CHECKING:
    from buri.node.agent import Agent

log = logging.getLogger("buri.node")

PING_PATIENCE_S = 5.0
_C2N = "c2n"
_C2N_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 10\r\n\r\nnot found\n"


class PingResponse(Wire):
    """tailcfg.PingResponse."""

    type: str = go("Type", "")
    ip: str = go("IP", "")
    node_ip: str = go("NodeIP", "")
    node_name: str = go("NodeName", "")
    err: str = go("Err", "")
    latency_seconds: float = go("LatencySeconds", 0.0)
    endpoint: str = go("Endpoint", "")
    derp_region_id: int = go("DERPRegionID", 0)
    derp_region_code: str = go("DERPRegionCode", "")


async def ping_peer(
    node: Agent, address: IPAddress, size_bytes: int = 0, patience_s: float = PING_PATIENCE_S
) -> tuple[Node, PingDone]:
    """One disco ping to the peer with this tailnet address; raises StateError when there is none."""
    nodes = node.netmap.peers.values() if node.netmap is not None else ()
    for peer in nodes:
        if address in addresses_of(peer):
            return peer, await node.underlay.ping(NodePublic.parse(peer.key), size_bytes, patience_s)
    raise StateError(f"No peer of this tailnet has the address {address}.")


async def answer_ping(node: Agent, request: PingRequest) -> None:
    """Do what `request` asks; a failure is logged, never raised."""
    try:
        if not request.types:
            await _reply(node, request, b"")
            return
        for kind in request.types.split(","):
            if kind == _C2N:
                await _reply(node, request, _C2N_NOT_FOUND)
                continue
            response = PingResponse(type=kind, ip=request.ip, err=f"{kind} pings are not supported by this node.")
            if kind == "disco":
                response = await _ping(node, ip_address(request.ip))
            await _reply(node, request, msgspec.json.encode(response))
    except (BuriError, ValueError, TimeoutError) as error:
        log.info("A ping the control server asked for failed: %s", error)


async def _ping(node: Agent, address: IPAddress) -> PingResponse:
    peer, done = await ping_peer(node, address)
    return PingResponse(
        type="disco",
        ip=str(address),
        node_ip=str(address),
        node_name=peer.name,
        err=done.error,
        latency_seconds=done.latency_s,
        endpoint=str(done.endpoint or ""),
        derp_region_id=done.region,
    )


async def _reply(node: Agent, request: PingRequest, body: bytes) -> None:
    if request.url_is_noise:
        link = node.control
        if link is None or not link.client.request_ping_answer(request, body, link.now()):
            raise StateError("The control session ended before the answer.")
        link.pump()
        return
    await http("POST" if body else "HEAD", request.url, body=body, mark=MARK)
