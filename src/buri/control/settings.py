"""What the domain is told at start."""

from __future__ import annotations

import msgspec

DAY_S = 86400.0
DEFAULT_BASE_DOMAIN = "buri.internal"


class Settings(msgspec.Struct, frozen=True):
    """`url` is what nodes were given as login server; `key_expiry_s` 0 = keys of people never expire."""

    url: str
    base_domain: str = DEFAULT_BASE_DOMAIN
    key_expiry_s: float = 180 * DAY_S
    ephemeral_timeout_s: float = 1800.0
    shared_frames: bool = True
