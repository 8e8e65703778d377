"""The words the control client speaks: what its shell does for it, and what it says to the layer above."""

from __future__ import annotations

import enum

import msgspec

from buri.core.keys import NodePrivate
from buri.machine.mapdelta import Change, Netmap
from buri.wire.tailcfg.mapping import PingRequest
from buri.wire.tailcfg.node import Login, User

# ---- for the shell ---------------------------------------------------------------------------------------------


class FetchKey(msgspec.Struct, frozen=True, tag=True):
    """GET `url` (certificate verified, at most 64 KiB); answer by `handle_key` or `handle_failed`."""

    url: str


class Dial(msgspec.Struct, frozen=True, tag=True):
    """Open TCP (TLS without ALPN when `tls`); answer by `handle_connected` or `handle_failed`."""

    host: str
    port: int
    tls: bool


class SendBytes(msgspec.Struct, frozen=True, tag=True):
    data: bytes


class HangUp(msgspec.Struct, frozen=True, tag=True):
    """Close the connection, or stop trying to open it."""


ControlTransmit = FetchKey | Dial | SendBytes | HangUp

# ---- for the layer above ---------------------------------------------------------------------------------------


class ControlState(enum.Enum):
    """How we stand with the control server."""

    OFF = "off"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    WAITING = "waiting"


class LoginURL(msgspec.Struct, frozen=True, tag=True):
    """A person must open `url`; the login then ends by itself. `lost`: the server does not know the key in use."""

    url: str
    lost: bool = False


class LoggedIn(msgspec.Struct, frozen=True, tag=True):
    """The server knows us by `key`; the map stream follows. `machine_authorized` False: an admin must approve first."""

    key: NodePrivate
    user: User
    login: Login
    machine_authorized: bool


class LoginFailed(msgspec.Struct, frozen=True, tag=True):
    """The login ended; nothing is tried again by itself."""

    message: str


class NewKeyWanted(msgspec.Struct, frozen=True, tag=True):
    """The server holds our node key for expired: keep a new one, then `login` with it."""


class LoggedOut(msgspec.Struct, frozen=True, tag=True):
    """The answer to `logout`; `error` non-empty: the server did not take it (our keys are forgotten all the same)."""

    error: str


class NetmapChanged(msgspec.Struct, frozen=True, tag=True):
    netmap: Netmap
    change: Change


class PingAsked(msgspec.Struct, frozen=True, tag=True):
    """The server wants to know whether we are there, or whether we reach a peer."""

    request: PingRequest


class BrowserURL(msgspec.Struct, frozen=True, tag=True):
    """The server wants the user to see a page."""

    url: str


class Trouble(msgspec.Struct, frozen=True, tag=True):
    """The control server cannot be used now, and why (one sentence); it is tried again. Empty: all is well again."""

    message: str


ControlEvent = (
    LoginURL | LoggedIn | LoginFailed | NewKeyWanted | LoggedOut | NetmapChanged | PingAsked | BrowserURL | Trouble
)
