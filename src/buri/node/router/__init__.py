"""What the operating system must know of the tailnet: addresses, routes, rules of one interface."""

from __future__ import annotations

from typing import Protocol

import msgspec

from buri.core.addresses import IPAddress, IPNetwork


class RouterConfig(msgspec.Struct, frozen=True):
    """The whole of it: the node's own addresses, those of its resolver, and what is routed into the tunnel."""

    addresses: tuple[IPAddress, ...] = ()
    routes: tuple[IPNetwork, ...] = ()
    mtu: int = 1280
    service_addresses: tuple[IPAddress, ...] = ()


class Router(Protocol):
    """Makes the system be like a `RouterConfig`.

    Raises SystemFault or NotPermittedError; what was half-changed then, the next `apply` mends.
    """

    def apply(self, config: RouterConfig) -> bool:
        """Change only what differs; False when thousands of routes do, and more is to do by the same call again."""

    def remove(self) -> None:
        """Take away everything of ours, also what an earlier process left; safe to call twice."""

    def close(self) -> None:
        """Let go of what `apply` needs; what is set stays."""
