"""The front door's binary over loopback: what it answers, relays, hands over, and whom it does not let in."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from buri.core.addresses import AddrPort
from buri.core.errors import ConfigError, InUseError
from buri.core.keys import NodePrivate, NodePublic
from buri.engine.frontport import Certificate, FrontConfig, FrontDoor
from buri.relay.identity import make_self_signed
from buri.testing.derpclient import PEER_GONE, PING, PONG, RECV_PACKET, SEND_PACKET, TIMEOUT_S, DERPClient, frame

pytestmark = pytest.mark.engine

RELAY_KEY = bytes([9]) * 32
ALICE, BOB, CAROL = (bytes([number]) * 32 for number in (1, 2, 3))
DISCO = "TS💬".encode() + bytes(100)
ANY = AddrPort.parse("127.0.0.1:0")

Open = Callable[..., FrontDoor]
Dial = Callable[..., DERPClient]


@pytest.fixture
def start() -> Iterator[Open]:
    """Opens front doors on loopback, closed after the test."""
    from buri.engine.frontdoor import NativeFrontDoor

    with ExitStack() as stack:

        def opened(
            listen: tuple[AddrPort, ...] = (ANY,),
            stun: tuple[AddrPort, ...] = (),
            certificate: Certificate | None = None,
            relay_key: bytes | None = RELAY_KEY,
            handoff: str | None = None,
        ) -> FrontDoor:
            door = NativeFrontDoor(FrontConfig(listen, stun, certificate, relay_key, handoff))
            stack.callback(door.close)
            return door

        yield opened


@pytest.fixture
def dial() -> Iterator[Dial]:
    """Connects greeted clients, closed after the test."""
    with ExitStack() as stack:

        def dialled(
            door: FrontDoor, private: bytes, *, tls: ssl.SSLContext | None = None, fast: bool = False
        ) -> DERPClient:
            client = DERPClient.connect(where(door), private, tls=tls, fast=fast)
            stack.callback(client.close)
            return client

        yield dialled


@pytest.fixture
def python(tmp_path: Path) -> Iterator[socket.socket]:
    """Where the door hands connections over."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "front.sock"))
        listener.listen(0)
        listener.settimeout(TIMEOUT_S)
        yield listener


def where(door: FrontDoor) -> tuple[str, int]:
    address = door.listening()[0]
    return str(address.address), address.port


def certificate() -> Certificate:
    return Certificate(*make_self_signed(["relay.example"], authority=True))


def trusting(found: Certificate) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=found.chain_pem.decode())


def ask(door: FrontDoor, head: bytes) -> bytes:
    """Everything that is answered until the door closes the connection."""
    with socket.create_connection(where(door), timeout=TIMEOUT_S) as client:
        client.sendall(head)
        return read_all(client)


def read_all(sock: socket.socket) -> bytes:
    got = b""
    with suppress(ConnectionResetError):  # closed with some of our bytes unread
        while data := sock.recv(1 << 16):
            got += data
    return got


def read_exactly(sock: socket.socket, count: int) -> bytes:
    got = b""
    while len(got) < count:
        data = sock.recv(count - len(got))
        assert data, "closed too early"
        got += data
    return got


def public(private: bytes) -> NodePublic:
    return NodePrivate.from_entropy(private).public()


def test_probes_are_answered_and_the_connection_ends(start: Open) -> None:
    door = start()
    for path in ("/derp/probe", "/derp/latency-check"):
        said = ask(door, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert said.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"Access-Control-Allow-Origin: *\r\n" in said
        assert b"Connection: close\r\n" in said
    said = ask(door, b"GET /generate_204 HTTP/1.1\r\nX-Tailscale-Challenge: abc\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 204 ")
    assert b"X-Tailscale-Response: response abc\r\n" in said


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"\x00\x01\x02\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /derp HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", b"426"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * (65 << 10), b"431"),
    ],
)
def test_what_cannot_be_answered_is_refused_by_its_status(start: Open, head: bytes, status: bytes) -> None:
    assert ask(start(), head).split()[1] == status


def test_without_a_relay_nobody_gets_one(start: Open) -> None:
    said = ask(start(relay_key=None), b"GET /derp HTTP/1.1\r\nUpgrade: DERP\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 404")


def test_packets_pass_between_plain_and_tls(start: Open, dial: Dial) -> None:
    given = certificate()
    door = start(certificate=given)
    alice = dial(door, ALICE)
    bob = dial(door, BOB, tls=trusting(given), fast=True)
    assert f"Derp-Public-Key: {alice.server.hex()}".encode() in alice.head
    assert alice.server == bob.server == NodePrivate.from_entropy(RELAY_KEY).public().raw
    alice.socket.sendall(b"".join(frame(SEND_PACKET, bob.key + bytes([n]) * 1000) for n in range(50)))
    for n in range(50):
        assert bob.receive() == (RECV_PACKET, alice.key + bytes([n]) * 1000)
    bob.send(alice.key, b"back")
    assert alice.receive() == (RECV_PACKET, bob.key + b"back")
    alice.write(PING, b"12345678")
    assert alice.receive() == (PONG, b"12345678")
    assert door.stats().counters["packets_sent"] == 51
    bob.close()
    assert alice.receive() == (PEER_GONE, bob.key + b"\x00")
    alice.send(bob.key, DISCO)
    assert alice.receive() == (PEER_GONE, bob.key + b"\x01")


def test_tls_offers_http_1_1_alone(start: Open) -> None:
    given = certificate()
    context = trusting(given)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(where(start(certificate=given)), timeout=TIMEOUT_S) as plain,
        context.wrap_socket(plain, server_hostname="relay.example") as client,
    ):
        assert client.selected_alpn_protocol() == "http/1.1"
        client.sendall(b"GET /derp/probe HTTP/1.1\r\n\r\n")
        assert read_all(client).startswith(b"HTTP/1.1 200")


def test_a_new_certificate_is_for_new_connections(start: Open, dial: Dial) -> None:
    old, new = certificate(), certificate()
    door = start(certificate=old)
    alice = dial(door, ALICE, tls=trusting(old))
    door.set_certificate(new)
    bob = dial(door, BOB, tls=trusting(new))
    bob.send(alice.key, b"hello")
    assert alice.receive() == (RECV_PACKET, bob.key + b"hello")
    with pytest.raises(ssl.SSLCertVerificationError):
        dial(door, CAROL, tls=trusting(old))
    with pytest.raises(ConfigError, match="stays as it was"):
        door.set_certificate(Certificate(new.chain_pem, old.key_pem))


def test_only_admitted_keys_are_let_in_and_others_leave(start: Open, dial: Dial) -> None:
    door = start()
    door.admit([public(ALICE), public(BOB)])
    alice, bob = (dial(door, private) for private in (ALICE, BOB))
    with pytest.raises(ConnectionError):
        dial(door, CAROL)
    assert set(door.stats().clients) == {public(ALICE), public(BOB)}
    door.admit([public(BOB)])
    assert alice.is_closed()
    door.admit_all()
    carol = dial(door, CAROL)
    carol.send(bob.key, b"now")
    assert bob.receive() == (RECV_PACKET, carol.key + b"now")


@pytest.mark.slow
def test_a_client_that_reads_nothing_is_closed_and_harms_nobody(start: Open, dial: Dial) -> None:
    door = start()
    alice, bob, carol = (dial(door, private) for private in (ALICE, BOB, CAROL))
    flood = frame(SEND_PACKET, bob.key + bytes(60_000)) * 20
    stop = threading.Event()

    def send() -> None:
        while not stop.is_set():
            alice.socket.sendall(flood)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        carol.send(alice.key, b"a word amid the flood")
        assert alice.receive() == (RECV_PACKET, carol.key + b"a word amid the flood")
        assert alice.receive() == (PEER_GONE, bob.key + b"\x00")
    finally:
        stop.set()
        thread.join()
    assert door.stats().counters["packets_dropped_queue_head"] > 0


@pytest.mark.slow
def test_a_client_that_says_nonsense_or_nothing_leaves_the_others_alone(start: Open, dial: Dial) -> None:
    door = start()
    alice = dial(door, ALICE)
    for nonsense in (frame(SEND_PACKET, bytes(100)), b"\x02\xff\xff\xff\xff", os.urandom(500)):
        with socket.create_connection(where(door), timeout=TIMEOUT_S) as sock:
            other = DERPClient(sock, BOB)
            sock.sendall(nonsense)
            assert other.is_closed()
    with socket.create_connection(where(door), timeout=TIMEOUT_S + 5) as silent:
        assert silent.recv(1) == b""  # after its ten seconds
    alice.write(PING, b"abcdefgh")
    assert alice.receive() == (PONG, b"abcdefgh")


@pytest.mark.parametrize("tls", [False, True])
def test_all_else_goes_whole_to_python_and_back(start: Open, python: socket.socket, tls: bool) -> None:
    given = certificate()
    door = start(certificate=given, handoff=python.getsockname())
    with ExitStack() as stack:
        client = stack.enter_context(socket.create_connection(where(door), timeout=TIMEOUT_S))
        source = client.getsockname()
        if tls:
            client = stack.enter_context(trusting(given).wrap_socket(client, server_hostname="relay.example"))
        head = b"POST /ts2021 HTTP/1.1\r\nUpgrade: tailscale-control-protocol\r\n\r\n"
        client.sendall(head + b"and more")
        accepted = stack.enter_context(python.accept()[0])
        accepted.settimeout(TIMEOUT_S)
        proxy = read_exactly(accepted, 16)
        assert proxy[:14] == b"\r\n\r\n\x00\r\nQUIT\n\x21\x11"
        rest = read_exactly(accepted, int.from_bytes(proxy[14:], "big"))
        assert rest[:8] == socket.inet_aton("127.0.0.1") * 2
        assert rest[8:12] == source[1].to_bytes(2, "big") + where(door)[1].to_bytes(2, "big")
        assert rest[12:] == (b"\x20\x00\x05\x01\x00\x00\x00\x00" if tls else b"")
        assert read_exactly(accepted, len(head) + 8) == head + b"and more"
        big = os.urandom(3_000_000)
        for sender, receiver in ((client, accepted), (accepted, client)):
            writing = threading.Thread(target=sender.sendall, args=(big,))
            writing.start()
            assert read_exactly(receiver, len(big)) == big
            writing.join()
        accepted.sendall(b"the end")
        accepted.close()
        assert read_all(client) == b"the end"
    assert door.stats().counters["front_handed_over"] == 1


def test_a_client_that_has_said_all_still_hears_the_answer(start: Open, python: socket.socket) -> None:
    door = start(handoff=python.getsockname())
    with socket.create_connection(where(door), timeout=TIMEOUT_S) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        with python.accept()[0] as accepted:
            accepted.settimeout(TIMEOUT_S)
            assert read_all(accepted).endswith(b"GET / HTTP/1.1\r\n\r\n")
            accepted.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        assert read_all(client) == b"HTTP/1.1 200 OK\r\n\r\n"


def test_a_full_backlog_of_python_is_tried_again(start: Open, python: socket.socket) -> None:
    with ExitStack() as stack:
        waiting = 0
        with suppress(BlockingIOError):
            while True:
                filler = stack.enter_context(socket.socket(socket.AF_UNIX))
                filler.setblocking(False)
                filler.connect(python.getsockname())
                waiting += 1
        door = start(handoff=python.getsockname())
        client = stack.enter_context(socket.create_connection(where(door), timeout=TIMEOUT_S))
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert door.stats().counters["front_handed_over"] == 0
        for _ in range(waiting):
            python.accept()[0].close()
        with python.accept()[0] as accepted:
            accepted.settimeout(TIMEOUT_S)
            assert read_exactly(accepted, 12) == b"\r\n\r\n\x00\r\nQUIT\n"


def test_a_python_that_is_not_there_is_a_bad_gateway(start: Open, tmp_path: Path) -> None:
    said = ask(start(handoff=str(tmp_path / "nobody")), b"GET / HTTP/1.1\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 502")
    assert b"does not answer" in said


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_stun_tells_where_a_question_came_from(start: Open, host: str) -> None:
    door = start(stun=(AddrPort.parse(f"{host}:0"),))
    (address,) = door.stun_listening()
    transaction = bytes(range(12))
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(TIMEOUT_S)
        client.connect((str(address.address), address.port))
        client.send(b"nonsense")
        client.send(b"\x00\x01\x00\x00\x21\x12\xa4\x42" + transaction)
        answer = client.recv(200)
        port = client.getsockname()[1]
        packed = socket.inet_pton(client.family, client.getsockname()[0])
    assert answer[:2] == b"\x01\x01"
    assert answer[8:20] == transaction
    assert answer[20:22] == b"\x00\x20"
    mask = b"\x21\x12\xa4\x42" + transaction
    assert int.from_bytes(answer[26:28], "big") ^ 0x2112 == port
    assert bytes(a ^ b for a, b in zip(answer[28:], mask, strict=False)) == packed
    assert door.stats().counters["stun_ignored"] == 1


def test_sockets_and_certificates_that_cannot_be_had_are_named(start: Open) -> None:
    taken = start().listening()[0]
    with pytest.raises(InUseError, match=str(taken)):
        start(listen=(taken,))
    with pytest.raises(ConfigError, match="holds no certificate"):
        start(certificate=Certificate(b"", b""))
