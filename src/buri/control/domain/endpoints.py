"""Which of the endpoints a node reports are passed on to its peers."""

from __future__ import annotations

from collections.abc import Sequence

from buri.core.addresses import AddrPort
from buri.core.errors import WireError

MAX_ENDPOINTS = 32


def accept(reported: Sequence[str] | None) -> tuple[AddrPort, ...]:
    """The usable ones in their order: no link-local or zoned address, no multicast, no port 0, no text that is none."""
    kept: dict[AddrPort, None] = {}
    for text in reported or ():
        if "%" in text:
            continue
        try:
            endpoint = AddrPort.parse(text)
        except WireError:
            continue  # one odd entry must not cost a node its others
        address = endpoint.address
        if endpoint.port == 0 or address.is_link_local or address.is_multicast or address.is_unspecified:
            continue
        kept[endpoint] = None
        if len(kept) == MAX_ENDPOINTS:
            break
    return tuple(kept)
