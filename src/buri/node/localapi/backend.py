"""What LocalAPI needs of a node: the seam between its HTTP server and the agent.

Every method answers by a value or raises a core.errors.BuriError, whose sentence goes to the user as it is. Nobody here
asks who is calling: the server has checked the caller's rights before.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from typing import Protocol

from buri.core.addresses import IPAddress
from buri.wire.localapi import (
    LoginProfile,
    MaskedPrefs,
    NetcheckReport,
    NetworkMap,
    Notify,
    NotifyMask,
    Options,
    PingResult,
    Prefs,
    Status,
    WhoIsResponse,
)
from buri.wire.tailcfg.derpmap import DERPMap


class Backend(Protocol):
    """A node as its LocalAPI sees it."""

    async def status(self, *, peers: bool) -> Status:
        """The state now; `Self` is always there (with the zero key while logged out), `Peer` only with `peers`."""

    async def prefs(self) -> Prefs:
        """The preferences now; `Config` (who is logged in) is None while nobody is."""

    async def edit_prefs(self, edit: MaskedPrefs) -> Prefs:
        """Change what the edit sets, and follow; raises ConfigError when the result cannot be used."""

    async def check_prefs(self, prefs: Prefs) -> None:
        """Raises ConfigError when these preferences could not be used; changes nothing."""

    async def start(self, options: Options) -> None:
        """Take the preferences of `options` whole, wish to run, and log in with its key if there is one.

        Says the state on the bus again even when nothing changes: `up` waits for it (wire reference, trap 11).
        """

    async def login_interactive(self) -> None:
        """Have a page to log in at (BrowseToURL on the bus), also when a login is under way or done already.

        After a `start` with an auth key it only starts that login, should it not have begun.
        """

    async def logout(self) -> None:
        """Have the server forget this node; done when it answered."""

    async def ping(self, address: IPAddress, kind: str, size_bytes: int, patience_s: float | None = None) -> PingResult:
        """One ping of `kind` (disco, TSMP, ICMP, peerapi); what makes it hopeless is in `Err` of the result.

        A ping that is merely lost is never answered, as upstream's: an error would end the caller's whole series. So
        it may wait for as long as the caller does; the caller going away cancels it. A caller that says its patience
        (`buri ping` does) is told after that time: `lost`, and why in `Err`.
        """

    async def whois(self, query: str, protocol: str) -> WhoIsResponse | None:
        """The node with this address, address and port, or node key; None when there is none."""

    async def derp_map(self) -> DERPMap | None:
        """The relays known now, None before the first netmap."""

    async def netcheck(self) -> NetcheckReport:
        """Measure the network now, all regions."""

    def watch(self, mask: NotifyMask) -> AbstractContextManager[AsyncIterator[Notify]]:
        """The bus from entering to leaving; the first message is what `mask` asks of the present, if it asks.

        Nothing said after entering is lost, however late the first message is asked for.
        """

    async def profile(self) -> LoginProfile:
        """The one account; an empty ID while logged out."""

    async def netmap(self) -> NetworkMap | None:
        """The netmap now, None before the first one."""

    async def metrics(self) -> str:
        """Counters as Prometheus text."""

    async def debug(self, action: str) -> str:
        """Do one of `restun`, `rebind`, `break-derp-conns`, `pick-new-derp`, …; what there is to say of it, often "".

        Raises StateError for an action there is not.
        """

    async def reset_auth(self) -> None:
        """Forget keys and login without asking the server."""

    async def shutdown(self) -> None:
        """Have the daemon end in good order, after this answer is out."""
