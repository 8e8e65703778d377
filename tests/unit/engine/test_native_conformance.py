"""The binary, by the suite of all engines: two engines with a device each, in a namespace of their own with only loopback.

Packet sockets stand for the host: what is sent on one goes out through the device, what the engine delivers is read back.
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address

import pytest

from buri.core.addresses import AddrPort
from buri.core.errors import StateError
from buri.core.keys import NodePrivate
from buri.engine import port
from unit.engine.conformance import EngineConformance, Pair, Side

pytestmark = [pytest.mark.engine, pytest.mark.root]

_CLONE_NEWNET = 0x40000000
_ETH_P_IP = 0x0800
_LOOPBACK = IPv4Address("127.0.0.1")


class NativeSide:
    """Made in a thread that has entered the namespace."""

    def __init__(self, number: int) -> None:
        from buri.engine.native import NativeEngine

        private = NodePrivate.from_entropy(bytes([number]) * 32)
        self.device = f"paths{number}"
        self.engine: port.Engine = NativeEngine(port.EngineConfig(private, tun_name=self.device, udp_port=41641))
        _ip("link", "set", self.device, "up")
        self.key = private.public()
        self.events: list[port.Event] = []
        while not self.events:
            select.select([self.engine.fileno()], [], [], 10)
            self.events += self.engine.poll_events()
        bound = self.events[0]
        assert isinstance(bound, port.Bound)
        assert bound.port_ipv4 is not None
        self.address = AddrPort(_LOOPBACK, bound.port_ipv4)
        self.packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_IP))
        self.packets.bind((self.device, _ETH_P_IP))
        self.packets.setblocking(False)
        self._received: list[bytes] = []

    def send(self, packet: bytes) -> None:
        self.packets.sendto(packet, (self.device, _ETH_P_IP, 0, 0, b""))

    def received(self) -> list[bytes]:
        while True:
            try:
                packet, where = self.packets.recvfrom(65536)
            except BlockingIOError:
                return self._received
            if where[2] != socket.PACKET_OUTGOING:
                self._received.append(packet)

    def close(self) -> None:
        self.engine.close()
        self.packets.close()


class NativePair:
    def __init__(self) -> None:
        self.natives = (NativeSide(1), NativeSide(2))
        self.here: Side = self.natives[0]
        self.there: Side = self.natives[1]

    def wait(self, condition: Callable[[], bool]) -> None:
        watched = [side.engine for side in self.natives]
        for _ in range(400):
            for side in self.natives:
                try:
                    side.events += side.engine.poll_events()
                except StateError:
                    watched = [engine for engine in watched if engine is not side.engine]
            if condition():
                return
            descriptors = [engine.fileno() for engine in watched]
            select.select([*descriptors, *(side.packets.fileno() for side in self.natives)], [], [], 0.025)
        counters = [
            {name: value for name, value in side.engine.stats().counters.items() if value} for side in self.natives
        ]
        raise AssertionError(f"it did not happen within ten seconds: {counters}")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@pytest.fixture
def pair() -> Iterator[Pair]:
    made: list[NativePair] = []
    failed: list[BaseException] = []

    def make() -> None:
        try:
            if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            # With IPv6 the kernel would greet routers through the devices.
            subprocess.run(["sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1"], check=True)
            _ip("link", "set", "lo", "up")
            made.append(NativePair())
        except BaseException as error:  # told in the test's own thread, below
            failed.append(error)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    yield made[0]
    for side in made[0].natives:
        side.close()


class TestNativeEngine(EngineConformance):
    """The suite."""
