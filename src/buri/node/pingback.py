"""Answering the control server's ping requests (wire reference 1a, "PingRequest")."""

from __future__ import annotations

import asyncio
import logging
from ipaddress import ip_address
from typing import Protocol

import msgspec

from buri.core.addresses import IPAddress
from buri.core.errors import BuriError, StateError
from buri.netio.streams import http
from buri.node.router.linux import MARK
from buri.wire.tailcfg.base import Wire, go
from buri.wire.tailcfg.mapping import PingRequest

log = logging.getLogger("buri.node")

PING_TIMEOUT_S = 10.0
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


class Pinger(Protocol):
    """What answering needs of a node."""

    async def ping_for_control(self, kind: str, address: IPAddress) -> PingResponse:
        """Ping a tailnet address."""

    def answer_control_ping(self, request: PingRequest, body: bytes) -> bool:
        """Answer inside the control session."""


async def answer_ping(node: Pinger, request: PingRequest) -> None:
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
                async with asyncio.timeout(PING_TIMEOUT_S):
                    response = await node.ping_for_control(kind, ip_address(request.ip))
            await _reply(node, request, msgspec.json.encode(response))
    except (BuriError, ValueError, TimeoutError) as error:
        log.info("A ping the control server asked for failed: %s", error)


async def _reply(node: Pinger, request: PingRequest, body: bytes) -> None:
    if request.url_is_noise:
        if not node.answer_control_ping(request, body):
            raise StateError("The control session ended before the answer.")
        return
    await http("POST" if body else "HEAD", request.url, body=body, mark=MARK)
