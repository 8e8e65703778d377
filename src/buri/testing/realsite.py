"""A control server's sign-in for real, on a port of this machine: database, HTTP, pages; and machines that ask to join."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from buri.control.clock import SystemClock
from buri.control.coordinator import Coordinator
from buri.control.noisefront.asgi import ASGIHandler
from buri.control.noisefront.listener import NoiseFront
from buri.control.noisefront.machineroutes import MachineRoutes
from buri.control.noisefront.pages import Pages
from buri.control.oidc.fetch import HTTPFetcher
from buri.control.oidc.provider import Provider
from buri.control.oidc.settings import Allowed, ProviderSettings
from buri.control.settings import Settings
from buri.control.signin import SignIn
from buri.core.addresses import AddrPort
from buri.core.keys import MachinePrivate, MachinePublic, NodePublic
from buri.testing.controlworld import derp_map
from buri.testing.realprovider import SECRET
from buri.web.app import make_app
from buri.wire.tailcfg.node import Hostinfo
from buri.wire.tailcfg.register import RegisterRequest, RegisterResponse


class Place:
    """Where a server runs: its directory, its port, and the providers it knows."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.providers: list[ProviderSettings] = []

    def callback(self, name: str) -> str:
        return f"{self.url}/login/callback/{name}"

    def add(self, name: str, issuer: str, allowed: Allowed) -> None:
        self.providers.append(ProviderSettings(name, name.upper(), "oidc", issuer, "buri", SECRET, allowed=allowed))

    @asynccontextmanager
    async def server(self) -> AsyncIterator[Coordinator]:
        """The server's process, as roles/server puts it together."""
        coordinator = await Coordinator.open(self.directory, Settings(url=self.url), derp_map(900))
        fetcher = HTTPFetcher()
        key = MachinePrivate.from_entropy(b"k" * 32)
        clock = SystemClock()
        port = SignIn(
            coordinator,
            self.url,
            key.raw,
            clock=clock,
            entropy=os.urandom,
            providers=[Provider(settings, fetcher, clock) for settings in self.providers],
        )
        pages = Pages(key.public(), self.url, tls=False)
        pages.extra = ASGIHandler(make_app(port)).handle
        front = NoiseFront(key, pages.handle, MachineRoutes(coordinator).handle)
        await front.listen_tcp(AddrPort.parse(f"127.0.0.1:{self.port}"))
        try:
            yield coordinator
        finally:
            await front.close()
            await fetcher.close()
            await coordinator.close()


class Box:
    """A machine that asks to join."""

    def __init__(self, name: str) -> None:
        self.machine = MachinePublic(os.urandom(32))
        self.key = NodePublic(os.urandom(32))
        self.hostinfo = Hostinfo(os="linux", hostname=name)

    async def ask(self, coordinator: Coordinator, followup: str = "") -> RegisterResponse:
        request = RegisterRequest(version=142, node_key=str(self.key), hostinfo=self.hostinfo, followup=followup)
        return await coordinator.register(self.machine, request)
