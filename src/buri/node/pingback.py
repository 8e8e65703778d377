"""Answering the control server's ping requests (wire reference 1a, "PingRequest")."""

from __future__ import annotations

import asyncio
import logging
from ipaddress import ip_address
from typing import TYPE_CHECKING, TypeVar

import msgspec

from buri.core.addresses import IPAddress
from buri.core.errors import BuriError, StateError
from buri.core.keys import NodePublic
from buri.netio.echoes import ping_icmp, ping_tsmp
from buri.netio.streams import http
from buri.node.reconciler import addresses_of
from buri.node.router.linux import MARK
from buri.wire.tailcfg.mapping import PingOutcome, PingRequest, PingResponse
from buri.wire.tailcfg.node import Node

if TYPE_CHECKING:
    from buri.node.agent import Agent

log = logging.getLogger("buri.node")

PING_PATIENCE_S = 5.0
_Outcome = TypeVar("_Outcome", bound=PingOutcome)
INNER_PINGS = ("ICMP", "TSMP")
_C2N = "c2n"
_C2N_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 10\r\n\r\nnot found\n"


async def ping_peer(
    node: Agent, address: IPAddress, into: type[_Outcome], *, size_bytes: int = 0, patience_s: float = PING_PATIENCE_S
) -> tuple[_Outcome, bool]:
    """One disco ping to the peer with this tailnet address, told as an `into`; and whether it was merely lost."""
    outcome = into(ip=str(address), node_ip=str(address))
    netmap, peer = node.netmap, _peer(node, address)
    if netmap is None or peer is None:
        outcome.err = f"No peer of this tailnet has the address {address}."
        return outcome, False
    outcome.node_name = peer.name.partition(".")[0]
    try:
        done = await node.underlay.ping(NodePublic.parse(peer.key), size_bytes, patience_s)
    except StateError as error:
        outcome.err = error.message
        return outcome, False
    outcome.err = done.error
    outcome.latency_seconds = done.latency_s
    if done.endpoint is not None:
        outcome.endpoint = str(done.endpoint)
    elif done.region:
        outcome.derp_region_id = done.region
        outcome.derp_region_code = netmap.derp_map.code_of(done.region)
    return outcome, done.lost


async def ping_inside(
    node: Agent, address: IPAddress, into: type[_Outcome], kind: str, patience_s: float | None = PING_PATIENCE_S
) -> tuple[_Outcome, bool]:
    """One ping through the tunnel, `ICMP` or `TSMP`, told as `ping_peer` does; it waits without end if told None."""
    outcome = into(ip=str(address), node_ip=str(address))
    peer = _peer(node, address)
    if peer is None:
        outcome.err = f"No peer of this tailnet has the address {address}."
        return outcome, False
    outcome.node_name = peer.name.partition(".")[0]
    try:
        async with asyncio.timeout(patience_s):
            outcome.latency_seconds = await (ping_icmp if kind == "ICMP" else ping_tsmp)(address)
    except TimeoutError:
        outcome.err = f"no answer within {patience_s:g} s"
        return outcome, True
    except BuriError as error:
        outcome.err = str(error)
    return outcome, False


def _peer(node: Agent, address: IPAddress) -> Node | None:
    peers = node.netmap.peers.values() if node.netmap is not None else ()
    return next((peer for peer in peers if address in addresses_of(peer)), None)


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
            if kind in INNER_PINGS:
                response, _ = await ping_inside(node, ip_address(request.ip), PingResponse, kind)
                response.type = kind
            elif kind == "disco":
                response, _ = await ping_peer(node, ip_address(request.ip), PingResponse)
                response.type = kind
            await _reply(node, request, msgspec.json.encode(response))
    except (BuriError, ValueError, TimeoutError) as error:
        log.info("A ping the control server asked for failed: %s", error)


async def _reply(node: Agent, request: PingRequest, body: bytes) -> None:
    if request.url_is_noise:
        link = node.control
        if link is None or not link.client.request_ping_answer(request, body, link.now()):
            raise StateError("The control session ended before the answer.")
        link.pump()
        return
    await http("POST" if body else "HEAD", request.url, body=body, mark=MARK)
