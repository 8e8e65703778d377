"""The binary behind the port: orders in, events out, and its refusals. No device, no right is needed for most of it."""

from __future__ import annotations

import gc
import os
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from buri.core.addresses import AddrPort
from buri.core.errors import ConfigError, InUseError, NotPermittedError, StateError
from buri.core.keys import NodePrivate
from buri.engine import load, port, source_hash

pytestmark = pytest.mark.engine

DISCO = "TS💬".encode() + bytes(range(80))
STUN = bytes([1, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42]) + bytes(12)
LOOPBACK = ip_address("127.0.0.1")


def private(number: int) -> NodePrivate:
    return NodePrivate.from_entropy(bytes([number]) * 32)


Start = Callable[..., port.Engine]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts engines without a device, closed after the test."""
    from buri.engine.native import NativeEngine

    with ExitStack() as stack:

        def made(number: int = 1, **changes: object) -> port.Engine:
            fields: dict[str, object] = {"private_key": private(number), "tun_name": None, "udp_port": 0} | changes
            engine = NativeEngine(port.EngineConfig(**fields))  # type: ignore[arg-type]
            stack.callback(engine.close)
            return engine

        yield made


def next_event(engine: port.Engine, timeout_s: float = 10.0) -> port.Event:
    """The next event, waited for on the engine's descriptor."""
    readable, _, _ = select.select([engine.fileno()], [], [], timeout_s)
    assert readable, "no event came"
    return engine.poll_events(1)[0]


def bound(engine: port.Engine) -> AddrPort:
    event = next_event(engine)
    assert isinstance(event, port.Bound)
    assert event.port_ipv4 is not None
    return AddrPort(LOOPBACK, event.port_ipv4)


def test_disco_and_stun_cross_from_one_engine_to_another(start: Start) -> None:
    here, there = start(1), start(2)
    mine, yours = bound(here), bound(there)
    here.apply([port.SendUDP(yours, DISCO), port.SendUDP(yours, STUN)])
    assert next_event(there) == port.DiscoIn(DISCO, source=mine)
    assert next_event(there) == port.STUNIn(mine, STUN)


def test_the_descriptor_is_readable_only_while_events_wait(start: Start) -> None:
    engine = start()
    bound(engine)
    assert select.select([engine.fileno()], [], [], 0)[0] == []


def test_a_taken_port_is_stepped_over(start: Start) -> None:
    first = bound(start())
    second = bound(start(udp_port=first.port))
    assert second.port > first.port


def test_every_order_is_taken_and_statistics_tell_of_the_peers(start: Start) -> None:
    engine = start()
    here = bound(engine)
    one, two = private(2).public(), private(3).public()
    net = (ip_network("100.64.0.2/32"), ip_network("fd7a:115c:a1e0::2/128"), ip_network("10.0.0.0/8"))
    engine.apply(
        [
            port.SetPrivateKey(private(9)),
            port.SetPeers((port.Peer(one, net), port.Peer(two, ()))),
            port.UpsertPeer(port.Peer(one, net[:1])),
            port.SetPath(one, udp=AddrPort.parse("[::1]:9"), relay_region=7, gso=False),
            port.SetFilter(net, (port.FilterRule(net, net, (port.PortRange(1, 2),), (6, 17)),), shields_up=True),
            port.PreferRelay(7, preferred=True),
            port.SendRelay(7, one, DISCO),
            port.CloseRelay(7),
            port.RemovePeer(two),
        ]
    )
    stats = engine.stats()
    assert stats.peers == (port.PeerStats(one, 0, 0, None, None, None),)
    assert stats.counters["drop_out_no_relay"] == 1
    engine.apply([port.Rebind()])
    assert bound(engine) == here


def test_a_relay_that_nobody_runs_is_told_down(start: Start) -> None:
    engine = start()
    bound(engine)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        engine.apply([port.ConnectRelay(7, (LOOPBACK,), taken.getsockname()[1], "localhost", plain=True)])
        event = next_event(engine)
    assert isinstance(event, port.RelayDown)
    assert event.region == 7
    assert "refused" in event.reason


def test_a_full_queue_drops_the_oldest_datagram_and_counts_it(start: Start) -> None:
    here, there = start(1), start(2, event_capacity=2)
    bound(here)
    yours = AddrPort(LOOPBACK, bound(there).port)
    here.apply([port.SendUDP(yours, DISCO + bytes([number])) for number in range(3)])
    seen: dict[str, int] = {}
    while seen.get("disco_rx") != 3:
        seen = there.stats().counters
    events = there.poll_events()
    assert [event.data[-1] for event in events if isinstance(event, port.DiscoIn)] == [1, 2]
    assert there.stats().counters["drop_events"] == 1


def test_after_close_orders_are_refused_and_closing_again_is_harmless(start: Start) -> None:
    engine = start()
    engine.close()
    engine.close()
    with pytest.raises(StateError):
        engine.apply([port.Rebind()])
    with pytest.raises(StateError):
        engine.stats()


def test_a_forgotten_engine_gives_its_port_back() -> None:
    from buri.engine.native import NativeEngine

    engine = NativeEngine(port.EngineConfig(private(1), tun_name=None, udp_port=0))
    where = bound(engine)
    del engine
    gc.collect()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind(("127.0.0.1", where.port))


def test_an_impossible_interface_name_is_a_configuration_error(start: Start) -> None:
    with pytest.raises(ConfigError, match="interface"):
        start(tun_name="a/b")


@pytest.mark.root
def test_a_taken_interface_name_says_so(start: Start) -> None:
    start(tun_name="io-taken0")
    with pytest.raises(InUseError, match="io-taken0 belongs to another program"):
        start(tun_name="io-taken0")


@pytest.mark.root
def test_without_the_right_to_a_device_the_error_says_what_to_do() -> None:
    from buri.engine.native import NativeEngine

    load()  # while this user may still read the checkout
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # a child of its own, for rights given up do not come back
        try:
            os.setgid(65534)
            os.setuid(65534)
            NativeEngine(port.EngineConfig(private(1), tun_name="io-denied0", udp_port=0))
        except NotPermittedError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as said:
        text = said.read()
    os.waitpid(child, 0)
    assert "does not permit a TUN device" in text
    assert "Run as root" in text


def test_the_hash_of_a_checkout_follows_its_sources(tmp_path: Path) -> None:
    (tmp_path / "rust" / "engine-py").mkdir(parents=True)
    (tmp_path / "rust" / "engine-py" / "build.rs").write_text("fn main() {}")
    for name in ("Cargo.toml", "Cargo.lock"):
        (tmp_path / name).write_text("")
    before = source_hash(tmp_path)
    (tmp_path / "rust" / "engine-py" / "lib.rs").write_text("")
    assert source_hash(tmp_path) != before
    (tmp_path / "rust" / "target").mkdir()
    after = source_hash(tmp_path)
    (tmp_path / "rust" / "target" / "made.rs").write_text("")
    assert source_hash(tmp_path) == after
    assert source_hash(tmp_path / "rust") is None
