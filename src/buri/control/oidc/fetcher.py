"""What a provider needs of the network; `fetch.HTTPFetcher` is the real one, tests have their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec


class SilentError(Exception):
    """Nobody answered, or only to say that it cannot; the text is for the end of a sentence."""


class Answer(msgspec.Struct, frozen=True):
    status: int
    body: dict[str, object]


class Fetcher(Protocol):
    """What a provider needs of the network. Raises SilentError or NonsenseError."""

    async def get(self, url: str, bearer: str = "") -> Answer:
        """Fetch JSON."""

    async def post(self, url: str, form: Mapping[str, str], basic: tuple[str, str] | None) -> Answer:
        """Send a form, with a name and password where `basic` is given; the answer is JSON whatever its status."""
