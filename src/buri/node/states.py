"""The states a node's user sees, and which one follows from the facts (wire reference 1g; upstream `ipn/ipnlocal`)."""

from __future__ import annotations

import msgspec

from buri.wire.localapi import BackendState


class Facts(msgspec.Struct, frozen=True):
    """What the state follows from. `lost`: the server does not know the node's key any more."""

    has_key: bool
    wanted: bool
    has_netmap: bool = False
    expired: bool = False
    lost: bool = False
    authorized: bool = True
    relay_up: bool = False
    live_peer: bool = False


def next_state(now: BackendState, facts: Facts) -> BackendState:
    """The state that `facts` make; a node that ran once does not fall back to Starting for a lost relay."""
    if not facts.has_key:
        return BackendState.NEEDS_LOGIN
    if not facts.wanted:
        return BackendState.STOPPED
    if facts.expired or facts.lost:
        return BackendState.NEEDS_LOGIN
    if not facts.has_netmap:
        return BackendState.STARTING
    if not facts.authorized:
        return BackendState.NEEDS_MACHINE_AUTH
    if now is BackendState.RUNNING or facts.relay_up or facts.live_peer:
        return BackendState.RUNNING
    return BackendState.STARTING
