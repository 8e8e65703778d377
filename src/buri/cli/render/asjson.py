"""JSON for people and scripts."""

from __future__ import annotations

import msgspec


def pretty(value: object) -> str:
    """Indented JSON without the last newline; bytes are taken as JSON already."""
    data = value if isinstance(value, bytes) else msgspec.json.encode(value)
    return msgspec.json.format(data, indent=2).decode()
