"""Who calls over the Unix socket, and what that user may do (upstream: `ipn/ipnauth`, `ipn/ipnserver`).

Root, the user that runs the daemon, and the operator of the preferences may change things; everyone else may look.
"""

from __future__ import annotations

import os
import pwd
import socket
import struct

from buri.node.localapi.exchange import Rights

_CREDENTIALS = struct.Struct("=iII")  # pid, uid, gid of SO_PEERCRED


def peer_uid(connection: socket.socket) -> int | None:
    """The user ID at the other end; None where the system does not tell."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    _, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size))
    return int(uid)


def rights_of(uid: int | None, operator: str) -> Rights:
    """The rights of a user, `operator` being the operator's name or ""."""
    if uid is None:
        return Rights(write=False, who="an unknown user")
    return Rights(write=uid in (0, os.geteuid()) or (operator != "" and uid == _uid_of(operator)), who=_name_of(uid))


def _uid_of(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
