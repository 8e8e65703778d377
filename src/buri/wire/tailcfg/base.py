"""Ground of the tailcfg structs: Go's JSON, read and written exactly (wire reference 1.0).

Go's zero value and absence are the same; so fields default to the zero value and `omit_defaults` leaves them out. Where
"absent" and "empty" differ (map responses), the default is UNSET. Keys travel as text; `times` are RFC 3339 text.
Unknown fields are ignored. Field names of Go are given by `name=`.
"""

from __future__ import annotations

import datetime
from typing import Any

import msgspec

ZERO_TIME = "0001-01-01T00:00:00Z"
FIRST_S, LAST_S = -62135596800.0, 253402300799.0  # what RFC 3339 can say: the years 1 to 9999


class Wire(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Base of every tailcfg struct."""


def go(name: str, default: Any = msgspec.NODEFAULT, *, factory: Any = msgspec.NODEFAULT) -> Any:
    """A field with Go's name."""
    if factory is not msgspec.NODEFAULT:
        return msgspec.field(name=name, default_factory=factory)
    return msgspec.field(name=name, default=default)


def format_time(wall_s: float) -> str:
    """Seconds since 1970 as RFC 3339 in UTC; 0 is Go's zero time. A time past all years is the last one."""
    if wall_s == 0:
        return ZERO_TIME
    moment = datetime.datetime.fromtimestamp(min(max(wall_s, FIRST_S), LAST_S), datetime.UTC)
    text = moment.strftime("%Y-%m-%dT%H:%M:%S")
    if moment.microsecond:
        text += f".{moment.microsecond:06d}".rstrip("0")
    return text + "Z"


def parse_time(text: str) -> float:
    """RFC 3339 to seconds since 1970; Go's zero time and "" are 0. Raises ValueError."""
    if not text or text.startswith("0001-01-01T00:00:00"):
        return 0.0
    head, dot, tail = text.partition(".")
    if dot:  # Go writes up to nine digits; Python takes six
        digits = "".join(c for c in tail[: next((i for i, c in enumerate(tail) if not c.isdigit()), len(tail))])
        rest = tail[len(digits) :]
        text = f"{head}.{digits[:6]}{rest}"
    return datetime.datetime.fromisoformat(text).timestamp()
