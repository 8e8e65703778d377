"""A session that asks nothing does not stay."""

from __future__ import annotations

import asyncio

import pytest

from buri.control.noisefront import tunnel as module
from buri.control.noisefront.exchange import Request
from buri.control.noisefront.tunnel import Reply, Tunnel
from buri.core.keys import MachinePrivate, MachinePublic
from buri.machine.noiseclient import NoiseClient
from buri.machine.noiseserver import NoiseServer
from buri.wire.noise import Agreement


class Wire(asyncio.Transport):
    """Takes what is written; knows whether it was closed."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._protocol_of = protocol
        self.closed = asyncio.Event()

    def write(self, data: bytes | bytearray | memoryview) -> None: ...

    def is_closing(self) -> bool:
        return self.closed.is_set()

    def close(self) -> None:
        if not self.closed.is_set():
            self.closed.set()
            self._protocol_of.connection_lost(None)


async def nobody(_machine: MachinePublic, _request: Request, _reply: Reply) -> None:
    raise AssertionError("nothing was asked")


def test_a_session_without_a_request_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE_TIMEOUT_S", 0.01)

    async def run() -> None:
        keys = [MachinePrivate.from_entropy(bytes([number]) * 32) for number in range(1, 5)]
        noise = NoiseServer(Agreement(keys[0]), keys[1])
        noise.accept(NoiseClient(keys[2], keys[0].public(), 130, keys[3]).initiation())
        ended: list[Tunnel] = []
        tunnel = Tunnel(noise, nobody, "peer", ended.append)
        wire = Wire(tunnel)
        tunnel.connection_made(wire)
        async with asyncio.timeout(10):
            await wire.closed.wait()
        assert ended == [tunnel]

    asyncio.run(run())
