"""The control server's face as one object: it takes TCP, or the Unix socket behind the front door."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

from buri.control.noisefront.exchange import Handler
from buri.control.noisefront.http1 import HTTPConnection
from buri.control.noisefront.tunnel import MachineHandler, Tunnel
from buri.core.addresses import AddrPort
from buri.core.bindfault import bind_fault
from buri.core.errors import SystemFault
from buri.core.keys import MachinePrivate
from buri.machine.noiseserver import NoiseServer
from buri.wire.noise import Agreement

BACKLOG = 4096


class NoiseFront:
    """Serves `pages` outside Noise and `machine` inside it, on every listener that is opened."""

    def __init__(
        self, key: MachinePrivate, pages: Handler, machine: MachineHandler, entropy: Callable[[int], bytes] = os.urandom
    ) -> None:
        self._key = Agreement(key)
        self._pages = pages
        self._machine = machine
        self._entropy = entropy
        self._tunnels: set[Tunnel] = set()
        self._servers: list[asyncio.Server] = []
        self._socket_path: Path | None = None

    async def listen_tcp(self, address: AddrPort) -> AddrPort:
        """Serve plain TCP; returns the address really bound. Raises InUseError, NotPermittedError or SystemFault."""
        try:
            server = await asyncio.get_running_loop().create_server(
                lambda: self._connection(behind_front_door=False), str(address.address), address.port, backlog=BACKLOG
            )
        except OSError as error:
            raise bind_fault(error, f"{address}") from error
        self._servers.append(server)
        bound = server.sockets[0].getsockname()
        return AddrPort(address.address, bound[1])

    async def listen_unix(self, path: Path) -> None:
        """Serve what the front door hands over; only this user may connect. Raises SystemFault."""
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            mask = os.umask(0o177)  # nobody else may connect, not even for the moment before a chmod
            try:
                listener.bind(str(path))
            finally:
                os.umask(mask)
            server = await asyncio.get_running_loop().create_unix_server(
                lambda: self._connection(behind_front_door=True), sock=listener, backlog=BACKLOG
            )
        except OSError as error:
            listener.close()
            raise SystemFault(
                f"The socket {path} cannot be opened: {error.strerror or error}.", remedy="Give another --state-dir."
            ) from error
        self._servers.append(server)
        self._socket_path = path

    async def close(self) -> None:
        """Stop listening and end every session."""
        for server in self._servers:
            server.close()
        for tunnel in list(self._tunnels):
            tunnel.close()
        if self._socket_path is not None:
            with contextlib.suppress(FileNotFoundError):
                self._socket_path.unlink()

    def _connection(self, *, behind_front_door: bool) -> HTTPConnection:
        return HTTPConnection(self._pages, self._tunnel, behind_front_door=behind_front_door)

    def _tunnel(self, initiation: bytes, peer: str) -> tuple[Tunnel, bytes]:
        noise = NoiseServer(self._key, MachinePrivate.from_entropy(self._entropy(32)))
        response = noise.accept(initiation)
        tunnel = Tunnel(noise, self._machine, peer, self._tunnels.discard)
        self._tunnels.add(tunnel)
        return tunnel, response
