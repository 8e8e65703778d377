"""What the agent tells whoever listens (the notify bus): small facts, one at a time, in order."""

from __future__ import annotations

import msgspec

from buri.machine.mapdelta import Change, Netmap
from buri.wire.localapi import BackendState


class StateChanged(msgspec.Struct, frozen=True, tag=True):
    state: BackendState


class PrefsChanged(msgspec.Struct, frozen=True, tag=True):
    pass


class BrowseToURL(msgspec.Struct, frozen=True, tag=True):
    """A person is to open this page."""

    url: str


class LoginFinished(msgspec.Struct, frozen=True, tag=True):
    pass


class Failed(msgspec.Struct, frozen=True, tag=True):
    """What was asked ended in failure: one sentence."""

    message: str


class NetmapNews(msgspec.Struct, frozen=True, tag=True):
    netmap: Netmap
    change: Change


class HealthChanged(msgspec.Struct, frozen=True, tag=True):
    pass


Notice = StateChanged | PrefsChanged | BrowseToURL | LoginFinished | Failed | NetmapNews | HealthChanged
