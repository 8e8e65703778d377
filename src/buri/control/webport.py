"""What the web room needs of the control server to sign people in and let their machines join.

The web room owns pages, cookies and forms; behind this Protocol is the truth. Tokens are secrets of one browser: they go
into its cookies and nowhere else. Refusals for the person are `SignInProblem`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from buri.control.credentials import LinkKind
from buri.control.service import PendingLogin
from buri.control.snapshot import NodeRecord, UserRecord


class ProviderChoice(msgspec.Struct, frozen=True):
    """A provider as a button: `name` is in its addresses, `label` on the button."""

    name: str
    label: str


class Departure(msgspec.Struct, frozen=True):
    """Send the browser to `url` and have it keep `cookie` under `cookie_name` until it is back."""

    url: str
    cookie_name: str
    cookie: str
    lifetime_s: int


class Arrival(msgspec.Struct, frozen=True):
    """Back and signed in: the session's token, and where on this server the person wanted to go."""

    token: str
    onward: str
    cookie_name: str


class Invitation(msgspec.Struct, frozen=True):
    """What a link is for. `name` "": they choose their name."""

    kind: LinkKind
    name: str
    may_choose_name: bool


class SignInPort(Protocol):
    """People at their browsers. `source` is the network address that asks."""

    @property
    def url(self) -> str:
        """This server's own address, without a trailing slash."""

    @property
    def providers(self) -> Sequence[ProviderChoice]:
        """Where people may sign in, in the order of the settings."""

    @property
    def passwords(self) -> bool:
        """Whether local accounts may sign in."""

    @property
    def unclaimed(self) -> bool:
        """Whether no owner can sign in yet: the one-time link of the server's start is still to be used."""

    def person(self, token: str) -> UserRecord | None:
        """Who is signed in by a session's token."""

    async def sign_in(self, name: str, password: str, source: str, *, replacing: str = "") -> str:
        """A session's token for a name and password; the session of the token `replacing` ends."""

    async def sign_out(self, token: str) -> None:
        """End a session."""

    async def depart(self, provider: str, onward: str, link: str = "") -> Departure:
        """Begin a sign-in at a provider; `link` is the one-time link that it shall spend."""

    async def arrive(
        self, provider: str, query: Mapping[str, str], cookies: Mapping[str, str], *, replacing: str = ""
    ) -> Arrival:
        """Finish it with what the provider sent back by the browser."""

    def invitation(self, token: str) -> Invitation | None:
        """An unspent link."""

    async def accept(self, token: str, name: str, password: str, *, replacing: str = "") -> str:
        """Spend a link by choosing a password; a session's token."""

    def machine(self, code: str) -> PendingLogin | None:
        """The machine that waits under a code, or joined by it a short while ago."""

    async def admit(self, code: str, user: UserRecord) -> NodeRecord:
        """Let the machine join as the user's."""

    def turn_away(self, code: str) -> None:
        """Tell the machine no."""

    def machines(self, user: UserRecord) -> list[NodeRecord]:
        """The user's own nodes, oldest first."""
