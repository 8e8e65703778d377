"""Files, variables and rows: a sound setting, or one sentence that says what is wrong with it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from buri.control import config as server
from buri.control.derpmap import read_derp_map
from buri.control.snapshot import AuthKeyRecord, NodeRecord
from buri.control.store import rows
from buri.core.addresses import AddrPort
from buri.core.errors import ConfigError
from buri.core.keys import DiscoPrivate, MachinePrivate, NodePrivate
from buri.machine.mapdelta import Netmap
from buri.node.statestore import FORMAT, NETMAP_FILE, SavedNetmap, State, StateStore
from buri.relay import config as relay
from buri.wire import adminapi
from buri.wire.badjson import BAD_JSON
from buri.wire.tailcfg.node import Hostinfo, Node
from fuzz.target import Input, Target, piece

_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
_PLACE = tempfile.TemporaryDirectory(prefix="buri-fuzz-", dir=_MEMORY, ignore_cleanup_errors=True)
_DIRECTORY = Path(_PLACE.name)
_SERVER_NAMES = [server.VARIABLE_PREFIX + name.upper() for name in server.ServerFlags.__struct_fields__]
_RELAY_NAMES = [relay.VARIABLE_PREFIX + name.upper() for name in relay.RelayFlags.__struct_fields__]
_NODE_KEY = NodePrivate.from_entropy(b"n" * 32)


def _variables(data: bytes) -> None:
    """The settings of server and relay, all from variables."""
    input_ = Input(data)
    values: dict[str, str] = {}
    while input_:
        name = (_SERVER_NAMES + _RELAY_NAMES)[input_.byte() % (len(_SERVER_NAMES) + len(_RELAY_NAMES))]
        values[name] = input_.take(input_.byte()).decode("utf-8", "surrogateescape").replace("\0", "")
    with contextlib.suppress(ConfigError):
        found = server.resolve(server.ServerFlags(), values)
        assert 0 < found.listen.port <= 0xFFFF
        assert found.host
        assert 0 < found.public_port <= 0xFFFF
    with contextlib.suppress(ConfigError):
        relay.resolve(relay.RelayFlags(), values)


def _derp_map(data: bytes) -> None:
    path = _DIRECTORY / "derp.json"
    path.write_bytes(data)
    try:
        found = read_derp_map(path)
    except ConfigError:
        return
    assert all(region is not None and region.nodes for region in (found.regions or {}).values())


def _state(data: bytes) -> None:
    """A node's two files as a crash, a disk or a person left them: a sentence about the first, silence about the second."""
    input_ = Input(data)
    (_DIRECTORY / "burid.state").write_bytes(input_.piece())
    (_DIRECTORY / NETMAP_FILE).write_bytes(input_.rest())
    try:
        store = StateStore(_DIRECTORY / "burid.state")
    except ConfigError:
        return
    store.load_netmap()
    again = StateStore(_DIRECTORY / "burid.state")
    assert (again.machine, again.disco, again.node_key) == (store.machine, store.disco, store.node_key)


def _row(data: bytes) -> None:
    """Rows with any bytes in any columns: records, or an error that the store turns into a sentence."""
    input_ = Input(data)
    kinds: tuple[tuple[dict[str, Any], Callable[[rows.Row], object]], ...] = (
        (rows.node_row(1, _NODE), rows.node_record),
        (rows.auth_key_row(1, _AUTH_KEY), rows.auth_key_record),
    )
    row, read = kinds[input_.byte() % 2]
    for _ in range(input_.byte() % 4):
        name = list(row)[input_.byte() % len(row)]
        value = input_.piece()
        if input_.byte() % 2:
            row[name] = value
        else:
            row[name] = value.decode("utf-8", "surrogateescape")
    with contextlib.suppress(*rows.UNREADABLE):
        read(row)


def _admin(data: bytes) -> None:
    """A line on the admin socket."""
    with contextlib.suppress(*BAD_JSON):
        request = adminapi.request_decoder.decode(data)
        assert adminapi.request_decoder.decode(msgspec.json.encode(request)) == request


_NODE = NodeRecord(
    id=1,
    stable_id="n1",
    machine=MachinePrivate.from_entropy(b"m" * 32).public(),
    key=_NODE_KEY.public(),
    disco=DiscoPrivate.from_entropy(b"d" * 32).public(),
    name="alice",
    name_pinned=False,
    user_id=1,
    tags=("tag:web",),
    ipv4="100.64.0.1",
    ipv6="fd7a:115c:a1e0::1",
    hostinfo=Hostinfo(os="linux", hostname="alice"),
    cap=142,
    endpoints=(AddrPort.parse("192.0.2.1:41641"),),
    home_derp=999,
    ephemeral=False,
    authorized=True,
    auth_key_id=None,
    created_s=1.0,
    expiry_s=0.0,
    last_seen_s=2.0,
)
_AUTH_KEY = AuthKeyRecord(
    id=1,
    prefix="abc",
    digest=b"d" * 32,
    user_id=None,
    tags=("tag:web",),
    reusable=True,
    ephemeral=False,
    created_s=1.0,
    expires_s=0.0,
)
_STATE = msgspec.json.encode(
    State(
        machine_key=MachinePrivate.from_entropy(b"m" * 32).text(),
        disco_key=DiscoPrivate.from_entropy(b"d" * 32).text(),
        node_key=_NODE_KEY.text(),
        prefs=msgspec.Raw(b'{"ControlURL": "http://10.77.0.1:8080", "WantRunning": true}'),
    )
)
_NETMAP = msgspec.json.encode(
    SavedNetmap(
        format=FORMAT,
        node_key=str(_NODE_KEY.public()),
        netmap=Netmap(self_node=Node(id=1, key=str(_NODE_KEY.public()), addresses=["100.64.0.1/32"])),
    )
)
_SOUND = b"\1\x0e127.0.0.1:8080\2\x17http://127.0.0.1:8080/\3\x0e127.0.0.1:3478\7\0\x06\5false"
_REGION = b'{"Regions":{"900":{"RegionID":900,"Nodes":[{"Name":"900a","RegionID":900,"HostName":"a.example"}]}}}'

TARGETS = (
    Target("variables", _variables, [_SOUND, b"\1\x05[::]:\2\x08http://[\x0a\x0f0.0.0.0:443\x20\x10\x03900"]),
    Target("derp_map_file", _derp_map, [_REGION, b"{}", b'{"Regions":{"1":null}}', b'{"Regions":' + b"[" * 5000]),
    Target("state_files", _state, [piece(_STATE) + _NETMAP, piece(b"") + b"", piece(b'{"x":' + b"[" * 5000) + b""]),
    Target(
        "database_rows",
        _row,
        [
            b"\0\0",
            b"\1\0",
            b"\0\1\x0b" + piece(b'{"OS": 7}') + b"\0",
            b"\0\2\2" + piece(b"short") + b"\1\x0d" + piece(b'["1.2.3.4:x"]') + b"\0",
            b"\1\1\5" + piece(b"[1]") + b"\0",
        ],
    ),
    Target(
        "admin_line",
        _admin,
        [
            b'{"verb":"users.list"}',
            b'{"verb":"nodes.rename","node":"1","name":"x"}',
            b'{"verb":"preauthkeys.create","user":"u","tags":["tag:a"],"reusable":true,"lifetime_s":60}',
            b'{"verb":' + b"[" * 5000,
        ],
    ),
)
