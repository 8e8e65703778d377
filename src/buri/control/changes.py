"""What a commit changed, as one small typed value: what the ledger publishes and the mapper turns into deltas."""

from __future__ import annotations

import msgspec


class Fields:
    """Which members of a node changed, as bits of a plain number: an `enum.IntFlag` costs a storm a tenth of its time.

    WHOLE stands for everything that has no patch on the wire.
    """

    NONE = 0
    ADDED = 1
    WHOLE = 2
    OWNER = 4
    ENDPOINTS = 8
    HOME_DERP = 16
    ONLINE = 32
    DISCO = 64
    KEY_EXPIRY = 128
    STANDING = 256  # expired or authorized flipped: what the node itself may see is new
    ROUTING = 512  # routes it advertises, or what postures ask of its host: the policy may say something else of it

    PATCHES = ENDPOINTS | HOME_DERP | ONLINE | DISCO | KEY_EXPIRY
    SELF_KNOWS = ENDPOINTS | HOME_DERP | ONLINE | DISCO | ROUTING  # the node itself said so: no news to it


class NodeAdded(msgspec.Struct, frozen=True):
    node_id: int


class NodeRemoved(msgspec.Struct, frozen=True):
    node_id: int


class NodeChanged(msgspec.Struct, frozen=True):
    node_id: int
    fields: int


class UserChanged(msgspec.Struct, frozen=True):
    """A user's profile has another text."""

    user_id: int


class DERPMapChanged(msgspec.Struct, frozen=True):
    pass


class PolicyChanged(msgspec.Struct, frozen=True):
    """Another policy is in force."""


Change = NodeAdded | NodeRemoved | NodeChanged | UserChanged | DERPMapChanged | PolicyChanged
