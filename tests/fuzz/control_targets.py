"""A control connection's two ends: what a client sends a server, what a server sends a client, layer by layer."""

from __future__ import annotations

import base64
import contextlib
import struct
from functools import cache
from typing import Any

import h2.config
import h2.connection
import msgspec

from buri.control.noisefront.exchange import Request, Response, sentence
from buri.control.noisefront.http1 import HTTPConnection
from buri.control.noisefront.machineroutes import MachineRoutes
from buri.control.noisefront.tunnel import Reply, Tunnel
from buri.control.store import rows
from buri.core.errors import BuriError, RefusedError, WireError
from buri.core.keys import MachinePrivate, MachinePublic
from buri.machine import mapdelta
from buri.machine.controlsession import EARLY_MAGIC, ControlSession
from buri.machine.mapframes import MapFrameReader, decode, zstd
from buri.machine.noiseclient import NoiseClient
from buri.machine.noiseserver import NoiseServer
from buri.node.reconciler import Choices, Reconciler
from buri.testing.controlworld import World
from buri.wire import noise
from buri.wire.badjson import BAD_JSON
from buri.wire.tailcfg.mapping import MapResponse
from fuzz.shells import KeptTransport, play, settle
from fuzz.target import Input, Target, piece

_SERVER = MachinePrivate.from_entropy(b"s" * 32)
_CLIENT = MachinePrivate.from_entropy(b"c" * 32)
_EPHEMERAL = MachinePrivate.from_entropy(b"e" * 32)
_AGREEMENT = noise.Agreement(_SERVER)
_VERSION = 142


def _noise_client() -> NoiseClient:
    return NoiseClient(_CLIENT, _SERVER.public(), _VERSION, _EPHEMERAL)


def _handshake() -> tuple[NoiseClient, NoiseServer, bytes]:
    """Both ends, and the response that is on its way to the client."""
    client, server = _noise_client(), NoiseServer(_AGREEMENT, MachinePrivate.from_entropy(b"f" * 32))
    return client, server, server.accept(client.initiation())


def _initiation(data: bytes) -> None:
    server = NoiseServer(_AGREEMENT, _EPHEMERAL)
    try:
        assert len(server.accept(data)) == noise.HEADER_BYTES + noise.RESPONSE_BODY_BYTES
    except WireError:
        return


def _records(data: bytes) -> None:
    """Records at either end after an honest handshake, or instead of the response: plaintext is only what was sealed."""
    input_ = Input(data)
    client, server, response = _handshake()
    honest = input_.byte() % 2
    if honest:
        client.receive(response)
        sealed = server.seal(b"x" * (input_.word() % 9000))
        server.receive(client.seal(b"hello"))
    try:
        while input_:
            if honest and input_.byte() % 4 == 0 and sealed:
                assert set(client.receive(sealed)) <= {ord("x")}
                sealed = b""
            else:
                assert client.receive(input_.piece()) == b""
    except (WireError, RefusedError):
        pass
    if honest:
        with contextlib.suppress(WireError):
            assert server.receive(input_.rest() or data) == b""


def _session(data: bytes) -> None:
    """A hostile server: the upgrade's answer, or what comes inside Noise (the early payload, HTTP/2)."""
    input_ = Input(data)
    client, server, response = _handshake()
    client = _noise_client()
    session = ControlSession(client, "server.example")
    stage = input_.byte() % 3
    size = input_.byte() + 1
    if stage:
        session.handle_bytes(b"HTTP/1.1 101 x\r\nUpgrade: tailscale-control-protocol\r\n\r\n" + response)
        if stage == 2:
            early = b'{"nodeKeyChallenge":""}'
            session.handle_bytes(server.seal(EARLY_MAGIC + len(early).to_bytes(4, "big") + early))
        if session.ready:
            session.request("POST", "/machine/map", b"{}")
    said = input_.rest()
    for at in range(0, len(said), size * 16):
        part = said[at : at + size * 16]
        session.handle_bytes(server.seal(part) if stage else part)
    session.handle_closed()
    while session.poll_transmit() is not None:
        pass
    while session.poll_event() is not None:
        pass


def _map_frames(data: bytes) -> None:
    """Map messages as they come, in pieces."""
    input_ = Input(data)
    size = input_.byte() + 1
    said = input_.rest()
    reader = MapFrameReader()
    try:
        for at in range(0, len(said), size):
            reader.feed(said[at : at + size])
    except WireError:
        return


def _netmap(data: bytes) -> None:
    """JSON of map messages, one after the other, into a netmap, and the netmap into tables: any message gives tables."""
    netmap: mapdelta.Netmap | None = None
    reconciler = Reconciler()
    for text in data.split(b"\n"):
        try:
            message = msgspec.json.decode(text, type=MapResponse)
        except BAD_JSON:
            continue
        try:
            netmap, _ = mapdelta.apply(netmap, message, 1_700_000_000.0)
        except WireError:
            continue
        reconciler.reconcile(netmap, Choices(accept_routes=True), 1_700_000_000.0)
        netmap = msgspec.json.decode(msgspec.json.encode(netmap), type=mapdelta.Netmap)


class _KeptReply:
    """Takes a machine route's answer as a stream would."""

    def __init__(self) -> None:
        self.begun = False
        self.body = b""

    async def send(self, response: Response) -> None:
        self.body = response.body

    def begin(self, status: int = 200, content_type: str = "") -> None:
        self.begun = True

    async def write(self, data: bytes) -> None:
        self.body += data
        raise ConnectionResetError  # a poll has no end of its own

    async def finish(self) -> None:
        pass


def _machine_requests(data: bytes) -> None:
    """A node of the tailnet asks anything: it gets an answer or a refusal, and its neighbour's netmap still reads."""
    play(_ask_as_machine(data))


async def _ask_as_machine(data: bytes) -> None:
    input_ = Input(data)
    world = World()
    key = await world.auth_key()
    hostile, neighbour = world.machine("hostile"), world.machine("neighbour")
    await hostile.join(key)
    await neighbour.join(key)
    routes = MachineRoutes(world.coordinator)
    paths = ("/machine/register", "/machine/map", "/machine/whoami", "/machine/set-dns")
    while input_:
        path = paths[input_.byte() % len(paths)]
        body = input_.piece()
        for name, text in ((b"KEY", str(hostile.key)), (b"DISCO", str(hostile.disco)), (b"AUTH", key)):
            body = body.replace(b"$" + name, text.encode())
        request = Request("GET" if path.endswith("whoami") else "POST", path, {}, body)
        reply: Any = _KeptReply()
        try:
            await routes.handle(hostile.machine, request, reply)
        except (BuriError, ConnectionError):
            continue
    for node in world.admin.snapshot.nodes.values():
        row = rows.node_row(1, node)
        assert rows.node_record(row) == msgspec.structs.replace(node, online=False)
        for value in row.values():
            if isinstance(value, str):
                value.encode()  # what a database takes
    framed = await world.coordinator.full_map(neighbour.machine, neighbour.map_request())
    (length,) = struct.unpack_from("<I", framed)
    netmap, _ = mapdelta.apply(None, decode(framed[4 : 4 + length]), 0.0)
    Reconciler().reconcile(netmap, Choices(), 0.0)
    await world.coordinator.close()


def _http(data: bytes) -> None:
    """Bytes on the server's Unix socket or plain listener: PROXY header, HTTP/1.1, the upgrade."""
    play(_serve_http(data))


async def _serve_http(data: bytes) -> None:
    input_ = Input(data)
    flags, size = input_.byte(), (input_.byte() + 1) * 8

    async def answer(request: Request) -> Response:
        assert request.target.startswith("/")
        request.query("x")
        return sentence(200, "well")

    def make_tunnel(initiation: bytes, _peer: str) -> tuple[Tunnel, bytes]:
        server = NoiseServer(_AGREEMENT, _EPHEMERAL)
        first = server.accept(initiation)
        return Tunnel(server, _no_route, "peer", lambda _tunnel: None), first

    connection = HTTPConnection(answer, make_tunnel, behind_front_door=bool(flags & 1))
    transport = KeptTransport()
    connection.connection_made(transport)
    said = input_.rest()
    for at in range(0, len(said), size):
        if transport.closed:
            break
        connection.data_received(said[at : at + size])
        await settle()
    if flags & 2 and not transport.closed:
        connection.eof_received()
    await settle()
    connection.connection_lost(None)
    await settle()
    assert not transport.out or transport.out.startswith(b"HTTP/1.1 ")


async def _no_route(_machine: MachinePublic, request: Request, reply: Reply) -> None:
    await reply.send(sentence(404, request.path))


def _tunnel(data: bytes) -> None:
    """HTTP/2 inside an honest Noise session, from a client that says anything."""
    play(_serve_tunnel(data))


async def _serve_tunnel(data: bytes) -> None:
    input_ = Input(data)
    size = (input_.byte() + 1) * 16
    client, server, response = _handshake()
    client.receive(response)
    ended: list[Tunnel] = []
    tunnel = Tunnel(server, _no_route, "peer", ended.append)
    transport = KeptTransport()
    tunnel.connection_made(transport)
    said = input_.rest()
    for at in range(0, len(said), size):
        if transport.closed:
            break
        tunnel.data_received(client.seal(said[at : at + size]))
        await settle()
    tunnel.connection_lost(None)
    await settle()
    assert ended == [tunnel]
    client.receive(bytes(transport.out))


@cache
def _h2_talk() -> bytes:
    """What an honest client says: preface, settings, two requests."""
    client = h2.connection.H2Connection(h2.config.H2Configuration())
    client.initiate_connection()
    for stream, path in ((1, "/machine/map"), (3, "/machine/register")):
        head = [(":method", "POST"), (":scheme", "https"), (":authority", "x"), (":path", path)]
        client.send_headers(stream, head)
        client.send_data(stream, b'{"Version":142}', end_stream=True)
    client.ping(b"12345678")
    return client.data_to_send()


def _h2_answer(status: str) -> bytes:
    """What an honest server says to the first request, inside Noise."""
    client = h2.connection.H2Connection(h2.config.H2Configuration())
    client.initiate_connection()
    client.send_headers(
        1, [(":method", "POST"), (":scheme", "https"), (":authority", "x"), (":path", "/")], end_stream=True
    )
    server = h2.connection.H2Connection(
        h2.config.H2Configuration(client_side=False, validate_outbound_headers=False, normalize_outbound_headers=False)
    )
    server.initiate_connection()
    server.receive_data(client.data_to_send())
    server.send_headers(1, [(":status", status), ("content-type", "application/json")])
    server.send_data(1, b"{}", end_stream=True)
    return server.data_to_send()


_INITIATION = _noise_client().initiation()
_UPGRADE = (
    b"POST /ts2021 HTTP/1.1\r\nHost: x\r\nUpgrade: tailscale-control-protocol\r\nConnection: upgrade\r\n"
    b"X-Tailscale-Handshake: " + base64.b64encode(_INITIATION) + b"\r\nContent-Length: 0\r\n\r\n"
)
_PROXY = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes((192, 0, 2, 1, 198, 51, 100, 2, 3, 232, 1, 187))
_NODE = (
    b'{"ID":2,"Name":"b.x.","Key":"nodekey:' + b"22" * 32 + b'","DiscoKey":"discokey:' + b"33" * 32 + b'",'
    b'"Addresses":["100.64.0.2/32"],"AllowedIPs":["100.64.0.2/32","10.0.0.0/8"],"Endpoints":["192.0.2.1:7"],'
    b'"HomeDERP":900,"LegacyDERPString":"127.3.3.40:9","KeyExpiry":"2027-01-01T00:00:00Z","Online":true,'
    b'"Hostinfo":{"NetInfo":{"MappingVariesByDestIP":true}}}'
)
_FULL = (
    b'{"Node":' + _NODE.replace(b'"ID":2', b'"ID":1') + b',"Peers":[' + _NODE + b'],"DERPMap":{"Regions":{"900":'
    b'{"RegionID":900,"Nodes":[{"Name":"a","HostName":"h"}]}}},"PacketFilter":[{"SrcIPs":["*","100.64.0.1-100.64.0.9"],'
    b'"DstPorts":[{"IP":"10.0.0.0/8","Ports":{"First":1,"Last":80}}],"IPProto":[6]}],"Domain":"x","Health":["h"]}'
)
_DELTAS = (
    b'{"PeersChangedPatch":[{"NodeID":2,"DERPRegion":3,"Endpoints":["[::1]:1"],"KeyExpiry":"x"}],"OnlineChange":{"2":false}}\n'
    b'{"PeersRemoved":[2],"PeersChanged":[' + _NODE + b'],"PacketFilters":{"*":null,"a":[{"SrcIPs":["cap:x"]}]}}\n'
    b'{"PeerSeenChange":{"2":true},"DisplayMessages":{"a":{"Title":"t"},"b":null},"SSHPolicy":{"rules":[]}}'
)
_COMPRESSED = zstd.compress(_FULL)
_FRAME = struct.pack("<I", len(_COMPRESSED)) + _COMPRESSED
_BOMB = zstd.compress(bytes(1 << 20))
_MAP = b'{"Version":142,"NodeKey":"$KEY","DiscoKey":"$DISCO","OmitPeers":true,"Endpoints":["192.0.2.1:7"],"EndpointTypes":[1],'
_HOST = (
    b'"Hostinfo":{"OS":"linux","Hostname":"h","RoutableIPs":["10.0.0.0/8"],"RequestTags":["tag:a"],'
    b'"NetInfo":{"PreferredDERP":900}}}'
)
_REGISTER = (
    b'{"Version":142,"NodeKey":"$KEY","OldNodeKey":"","Auth":{"AuthKey":"$AUTH"},"Expiry":"2026-01-01T00:00:00Z",'
)

TARGETS = (
    Target("noise_initiation", _initiation, [_INITIATION, _INITIATION[:50]]),
    Target(
        "noise_records",
        _records,
        [
            b"\1\x10\0\0" + piece(b"\4\0\x11" + bytes(17)),
            b"\0\1" + piece(b"\2\0\x30" + bytes(48)),
            b"\0\1" + piece(b"\3\0\4oops"),
            b"\1\0\1\1" + piece(b"\4\xff\xff"),
        ],
    ),
    Target(
        "control_session",
        _session,
        [
            b"\0\xffHTTP/1.1 101 x\r\nUpgrade: tailscale-control-protocol\r\n\r\n",
            b"\0\1HTTP/1.1 403 no\r\n\r\nbecause",
            b"\1\xff" + EARLY_MAGIC + b"\0\0\0\2{}" + _h2_answer("200"),
            b"\2\xff" + _h2_answer("200"),
            b"\2\x03" + _h2_answer("abc"),
            b"\1\xff" + EARLY_MAGIC + b"\0\0\x13\x88" + b"[" * 5000,
        ],
    ),
    Target(
        "map_frames",
        _map_frames,
        [b"\xff" + _FRAME, b"\7" + _FRAME * 2, b"\xff" + struct.pack("<I", len(_BOMB)) + _BOMB, b"\0\xff\xff\xff\xff"],
    ),
    Target("netmap", _netmap, [_FULL, _FULL + b"\n" + _DELTAS, b'{"KeepAlive":true}', b'{"SSHPolicy":' + b"[" * 5000]),
    Target(
        "machine_requests",
        _machine_requests,
        [
            b"\1" + piece(_MAP + _HOST),
            b"\1" + piece(_MAP.replace(b'"OmitPeers":true,', b'"Stream":true,') + _HOST) + b"\2" + piece(b""),
            b"\0" + piece(_REGISTER + _HOST) + b"\1" + piece(_MAP + b'"Hostinfo":null}'),
            b"\0" + piece(_REGISTER.replace(b"$AUTH", b"tskey-auth-x") + b'"Ephemeral":true,"Followup":"http://x/y"}'),
            b"\1" + piece(b'{"x":' + b"[" * 5000),
        ],
    ),
    Target(
        "server_http",
        _http,
        [
            b"\0\xff" + _UPGRADE,
            b"\1\xff" + _PROXY + b"GET /key?v=142 HTTP/1.1\r\nHost: x\r\n\r\n",
            b"\2\4GET http://x/y?x=%ff HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"\0\xffPOST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
            b"3\r\nabc\r\n0\r\n\r\n",
            b"\0\xffGET /derp HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: y\r\n\r\n",
        ],
    ),
    Target("server_tunnel", _tunnel, [b"\xff" + _h2_talk(), b"\1" + _h2_talk()]),
)
