"""Why packets go by a relay, in a few words for a person: the first thing known that keeps a direct path away."""

from __future__ import annotations

import msgspec

from buri.machine.paths.limits import PING_SPACING_S


class OwnNetwork(msgspec.Struct, frozen=True):
    """What the last netcheck saw of our own network; None: not known."""

    udp: bool | None = None
    hard_nat: bool | None = None


class Search(msgspec.Struct, frozen=True):
    """The search for a way to a peer as it stands. Times are seconds ago, None for never."""

    relay_up: bool
    addresses: int
    public_addresses: int
    heard: bool  # pings of the peer came by UDP
    peer_hard_nat: bool | None
    searching_s: float | None
    called_s: float | None  # a call-me-maybe went out


def why_searching(search: Search, own: OwnNetwork) -> str:
    """Why no address of an active peer has answered."""
    if own.udp is False:
        return "this network lets no UDP through"
    if not search.addresses:
        return "the peer offers no address"
    if own.hard_nat and search.peer_hard_nat:
        return "both sides are behind a NAT that changes ports by destination"
    if search.searching_s is not None and search.searching_s < PING_SPACING_S:
        return "looking for a direct path"
    if search.heard:
        return "the peer's pings come through, ours to it do not"
    if own.hard_nat:
        return "this NAT changes ports by destination, and no address of the peer answers"
    if search.peer_hard_nat:
        return "the peer's NAT changes ports by destination"
    if not search.public_addresses:
        return "the peer knows no public address of its own"
    if not search.relay_up:
        return "the peer's relay is not connected, so it cannot be called"
    if search.called_s is not None:
        return "the peer was called by its relay, and no ping came through either way"
    return "no address of the peer has answered yet"
