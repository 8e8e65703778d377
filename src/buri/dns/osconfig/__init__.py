"""How this machine's programs are led to our resolver: one file per manager, chosen by `choose`."""

from __future__ import annotations

from typing import Protocol

import msgspec

from buri.core.addresses import AddrPort, IPAddress


class OSDNS(msgspec.Struct, frozen=True):
    """What the system shall do: ask `nameservers`, for `match_domains` alone or, when `everything`, for all names."""

    nameservers: tuple[IPAddress, ...]
    search_domains: tuple[str, ...] = ()
    match_domains: tuple[str, ...] = ()
    everything: bool = False


class Manager(Protocol):
    """One way of telling the system. All raise SystemFault or NotPermittedError."""

    name: str
    splits: bool
    """Whether it can send single domains to us and leave the rest where it goes."""

    async def upstreams(self) -> tuple[AddrPort, ...]:
        """The resolvers this machine has of its own; needed by a manager that cannot split."""

    async def apply(self, wanted: OSDNS) -> None:
        """Make it so. What was there before comes back by `revert`, after a crash too."""

    async def revert(self) -> None:
        """Take away what is ours; safe to call when nothing is."""
