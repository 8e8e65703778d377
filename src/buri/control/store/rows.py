"""Records to rows and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from buri.control.credentials import Credential
from buri.control.snapshot import AuthKeyRecord, NodeRecord, PolicyRecord, UserRecord
from buri.core.addresses import AddrPort
from buri.core.errors import WireError
from buri.core.keys import DiscoPublic, MachinePublic, NodePublic
from buri.wire.badjson import BAD_JSON
from buri.wire.tailcfg.node import Hostinfo

Row = Mapping[str, Any]  # a database row: columns by name
UNREADABLE = (WireError, LookupError, TypeError, ValueError, *BAD_JSON)  # what a row raises that we did not write
_hostinfo = msgspec.json.Decoder(Hostinfo)
_strings = msgspec.json.Decoder(tuple[str, ...])


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()


def user_row(tailnet: int, user: UserRecord) -> dict[str, Any]:
    return {"tailnet": tailnet, **msgspec.structs.asdict(user)}


def user_record(row: Row) -> UserRecord:
    return UserRecord(**{name: row[name] for name in UserRecord.__struct_fields__})


def policy_row(tailnet: int, policy: PolicyRecord) -> dict[str, Any]:
    return {"tailnet": tailnet, **msgspec.structs.asdict(policy)}


def policy_record(row: Row) -> PolicyRecord:
    return PolicyRecord(**{name: row[name] for name in PolicyRecord.__struct_fields__})


def credential_row(tailnet: int, record: Credential) -> dict[str, Any]:
    return {"tailnet": tailnet, **msgspec.structs.asdict(record)}


def credential_record(kind: type[Credential], row: Row) -> Credential:
    return msgspec.convert({name: row[name] for name in kind.__struct_fields__}, kind)


def auth_key_row(tailnet: int, key: AuthKeyRecord) -> dict[str, Any]:
    return {"tailnet": tailnet, **msgspec.structs.asdict(key), "tags": _text(key.tags)}


def auth_key_record(row: Row) -> AuthKeyRecord:
    values = {name: row[name] for name in AuthKeyRecord.__struct_fields__}
    return AuthKeyRecord(**{**values, "tags": _strings.decode(row["tags"])})


def node_row(tailnet: int, node: NodeRecord) -> dict[str, Any]:
    row = {
        "tailnet": tailnet,
        **msgspec.structs.asdict(node),
        "machine": node.machine.raw,
        "key": node.key.raw,
        "disco": node.disco.raw,
        "tags": _text(node.tags),
        "hostinfo": _text(node.hostinfo),
        "endpoints": _text([str(endpoint) for endpoint in node.endpoints]),
    }
    del row["online"]
    return row


def node_record(row: Row) -> NodeRecord:
    values = {name: row[name] for name in NodeRecord.__struct_fields__ if name != "online"}
    values.update(
        machine=MachinePublic(row["machine"]),
        key=NodePublic(row["key"]),
        disco=DiscoPublic(row["disco"]),
        tags=_strings.decode(row["tags"]),
        hostinfo=_hostinfo.decode(row["hostinfo"]),
        endpoints=tuple(AddrPort.parse(text) for text in _strings.decode(row["endpoints"])),
    )
    return NodeRecord(**values)
