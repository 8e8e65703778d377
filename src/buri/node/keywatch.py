"""Watches the ends of keys by the control server's clock: this node's own, the warnings before it, the next peer's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from buri.core import keyexpiry
from buri.wire.tailcfg.base import parse_time
from buri.wire.tailcfg.node import Node

LOOK_AGAIN_S = 3600.0  # wall clocks are set, and machines sleep


class KeyWatch:
    """Calls `on_due` when an end may have come, `on_warning` when `warning` changed."""

    def __init__(self, on_due: Callable[[], None], on_warning: Callable[[], None]) -> None:
        self._on_due = on_due
        self._on_warning = on_warning
        self._timer: asyncio.TimerHandle | None = None
        self.warning = ""

    def arm(self, node: Node | None, peers_in_s: float | None, now_s: float) -> None:
        """Watch `node`, this one, from now on; `peers_in_s`: a peer's key ends then, None = none does; `now_s` is the
        control server's clock."""
        self.close()
        expiry_s = 0.0 if node is None else own_expiry_s(node)
        warning = keyexpiry.warning(expiry_s, now_s)
        if warning.partition(",")[0] != self.warning.partition(",")[0]:  # not for each hour less
            self.warning = warning
            self._on_warning()
        self.warning = warning
        ends = (expiry_s or None, keyexpiry.next_warning_s(expiry_s, now_s))
        waits = [peers_in_s, *(None if at_s is None else at_s - now_s for at_s in ends)]
        wait_s = min((wait for wait in waits if wait is not None and wait > 0), default=None)
        if wait_s is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(min(wait_s + 0.05, LOOK_AGAIN_S), self._on_due)

    def close(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def own_expiry_s(node: Node) -> float:
    """When a node's key ends, 0 = never; a time that does not read never comes."""
    try:
        return parse_time(node.key_expiry)
    except ValueError:
        return 0.0
