"""A control server that does what a good one never does: real HTTP, Noise and HTTP/2 outside, whatever a test wants inside.

It lets everybody in, shows everybody to everybody (endpoints and home relays too, so that real nodes get through to each
other), and says to one node, on demand, any bytes or any map message at all. Orders come by a Unix socket, a JSON object
a line: `{"to": 1, "frame": "<base64>"}` sends bytes as they are, `{"to": 1, "message": {…}}` a framed map message,
`{"first": {…}}` puts members into the first message of every stream to come.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec

from buri.control.noisefront.listener import NoiseFront
from buri.control.noisefront.machineroutes import MachineRoutes
from buri.control.noisefront.pages import Pages
from buri.control.service import PendingLogin
from buri.core.addresses import AddrPort
from buri.core.keys import MachinePrivate, MachinePublic
from buri.machine.mapframes import zstd
from buri.testing.lab import Host
from buri.wire.tailcfg.mapping import MapRequest
from buri.wire.tailcfg.register import RegisterRequest, RegisterResponse

MAX_LINE_BYTES = 1 << 26


def framed(message: dict[str, Any]) -> bytes:
    """A map message as it goes over the wire."""
    body = zstd.compress(msgspec.json.encode(message))
    return len(body).to_bytes(4, "little") + body


class _Stream:
    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()

    def say(self, data: bytes) -> None:
        self._queue.put_nowait(data)

    def end(self) -> None:
        self._queue.put_nowait(None)

    async def next(self) -> bytes:
        data = await self._queue.get()
        if data is None:
            raise StopAsyncIteration
        return data

    def close(self) -> None:
        pass


class BadControl:
    """The domain behind the real front; numbers of nodes count from 1 in the order in which they came."""

    def __init__(self, derp_map: dict[str, Any]) -> None:
        self._derp_map = derp_map
        self._nodes: dict[str, dict[str, Any]] = {}
        self._streams: dict[str, _Stream] = {}
        self._first: dict[str, Any] = {}

    def obey(self, order: dict[str, Any]) -> None:
        """Do what a line of the socket says."""
        if "first" in order:
            self._first = order["first"]
            return
        key = list(self._nodes)[order["to"] - 1]
        data = base64.b64decode(order["frame"]) if "frame" in order else framed(order["message"])
        if key in self._streams:
            self._streams[key].say(data)

    async def register(self, machine: MachinePublic, request: RegisterRequest, source: str = "") -> RegisterResponse:
        number = len(self._nodes) + 1
        address = f"100.64.0.{number}/32"
        node = {
            "ID": number, "StableID": f"n{number}", "Name": f"n{number}.bad.test.", "User": 5, "Key": request.node_key,
            "Addresses": [address], "AllowedIPs": [address], "MachineAuthorized": True, "Online": True,
        }  # fmt: skip
        self._nodes.setdefault(request.node_key, node)
        return RegisterResponse(machine_authorized=True)

    async def update(self, machine: MachinePublic, request: MapRequest) -> None:
        self._note(request)

    async def full_map(self, machine: MachinePublic, request: MapRequest) -> bytes:
        return framed(self._netmap(request.node_key))

    async def open_map(self, machine: MachinePublic, request: MapRequest) -> _Stream:
        stream = _Stream()
        if (older := self._streams.get(request.node_key)) is not None:
            older.end()
        self._streams[request.node_key] = stream
        self._note(request)
        stream.say(framed(self._netmap(request.node_key) | self._first))
        return stream

    def pending_login(self, code: str) -> PendingLogin | None:
        return None

    def _note(self, request: MapRequest) -> None:
        node = self._nodes[request.node_key]
        info = request.hostinfo.net_info if request.hostinfo is not None else None
        node["DiscoKey"] = request.disco_key
        node["Endpoints"] = request.endpoints or node.get("Endpoints", [])
        node["HomeDERP"] = (info.preferred_derp if info is not None else 0) or node.get("HomeDERP", 0)
        for key, stream in self._streams.items():
            if key != request.node_key:
                stream.say(framed({"PeersChanged": [node]}))

    def _netmap(self, key: str) -> dict[str, Any]:
        return {
            "Node": self._nodes[key],
            "Peers": [node for other, node in self._nodes.items() if other != key],
            "DERPMap": self._derp_map,
            "Domain": "bad.test",
            "UserProfiles": [{"ID": 5, "LoginName": "nobody@bad.test"}],
            "PacketFilter": [{"SrcIPs": ["*"], "DstPorts": [{"IP": "*", "Ports": {"First": 0, "Last": 65535}}]}],
        }


class BadControlServer:
    """One on a host, and the way to its socket."""

    def __init__(self, host: Host, address: str, port: int, derp_map: Path, environment: dict[str, str]) -> None:
        self._socket = host.directory / "bad.sock"
        words = [str(word) for word in (sys.executable, "-m", __name__, address, port, derp_map, self._socket)]
        self.process = host.start("badcontrol", *words, env=environment)
        self.process.expect("ready")

    def say_bytes(self, to: int, data: bytes) -> None:
        """Put bytes into a node's map stream."""
        self._order({"to": to, "frame": base64.b64encode(data).decode()})

    def say(self, to: int, message: dict[str, Any]) -> None:
        """Send a node a map message."""
        self._order({"to": to, "message": message})

    def begin_with(self, members: dict[str, Any]) -> None:
        """Put members into the first message of every stream from now on."""
        self._order({"first": members})

    def _order(self, order: dict[str, Any]) -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._socket))
            connection.sendall(json.dumps(order).encode() + b"\n")
            if connection.recv(16) != b"done\n":
                raise AssertionError(f"the bad control server failed: {self.process.lines[-10:]}")


async def _main(address: str, port: int, derp_map: Path, orders: Path) -> None:
    control = BadControl(json.loads(derp_map.read_text()))
    key = MachinePrivate.from_entropy(os.urandom(32))
    pages = Pages(key.public(), f"http://{address}:{port}", tls=False)
    front = NoiseFront(key, pages.handle, MachineRoutes(control).handle)
    await front.listen_tcp(AddrPort(ip_address(address), port))

    async def obey(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        control.obey(json.loads(await reader.readline()))
        writer.write(b"done\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(obey, orders, limit=MAX_LINE_BYTES):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])))
