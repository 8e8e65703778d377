"""Logins that wait for a person: a code each, bounded in number and time, woken when an administrator decides.

No address (IPv6: no /64) may have more than its share waiting, and when all places are taken, the address that has most
makes room: a flood of made-up logins pushes out itself.

They live in memory. A server that was restarted learns a login again from the node's next follow-up: the request
holds all that the login is, and the code in it is bound to the machine that sent it.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter, OrderedDict
from ipaddress import ip_network

import msgspec

from buri.control.domain.registration import Applicant
from buri.core.addresses import AddrPort
from buri.core.errors import WireError

CODE_ENTROPY = 10
CODE_TTL_S = 3600.0
MAX_LOGINS = 1024
MAX_LOGINS_OF_A_SOURCE = 128
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"  # 32 signs without 0, 1, l, o
_CODE = re.compile(r"[a-km-np-z2-9]{16}")


class Login(msgspec.Struct, eq=False):
    """One waiting login, asked for by `source` (`source_of`).

    `ended` is set when it was approved or refused; `refusal` then says why, "" = approved.
    """

    code: str
    applicant: Applicant
    expires_s: float
    ended: asyncio.Event
    source: str = ""
    refusal: str = ""
    deciding: bool = False
    """Somebody's approval is being committed; another one must not be."""


def make_code(entropy: bytes) -> str:
    """Sixteen signs of 5 bits from 10 random bytes."""
    number = int.from_bytes(entropy[:CODE_ENTROPY], "big")
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(0, 80, 5))


def code_of(followup: str) -> str:
    """The code at the end of an AuthURL; "" when that holds none."""
    code = followup.rstrip("/").rpartition("/")[2]
    return code if _CODE.fullmatch(code) else ""


def source_of(peer: str) -> str:
    """What of an "address:port" tells one household from another; "" for none."""
    try:
        address = AddrPort.parse(peer).address
    except WireError:
        return ""
    return str(address if address.version == 4 else ip_network((address, 64), strict=False))


class Logins:
    """The waiting logins by code."""

    def __init__(self) -> None:
        self._by_code: OrderedDict[str, Login] = OrderedDict()
        self._sources: Counter[str] = Counter()

    def begin(self, code: str, applicant: Applicant, now_s: float, source: str = "") -> Login:
        """Start one; the machine's older logins end, and past a bound the oldest of the source with the most."""
        self.purge(now_s)
        for login in [x for x in self._by_code.values() if x.applicant.machine == applicant.machine]:
            self._drop(login)
        if self._sources[source] >= MAX_LOGINS_OF_A_SOURCE:
            self._make_room(source)
        elif len(self._by_code) >= MAX_LOGINS:
            self._make_room(self._sources.most_common(1)[0][0])
        login = Login(code, applicant, now_s + CODE_TTL_S, asyncio.Event(), source)
        self._by_code[code] = login
        self._sources[source] += 1
        return login

    def _make_room(self, source: str) -> None:
        self._drop(next(login for login in self._by_code.values() if login.source == source))

    def get(self, code: str, now_s: float) -> Login | None:
        login = self._by_code.get(code)
        return None if login is None or login.expires_s <= now_s else login

    def end(self, login: Login, refusal: str = "") -> None:
        """Wake whoever waits; the code is spent."""
        login.refusal = refusal
        if self._by_code.pop(login.code, None) is not None:
            self._sources[login.source] -= 1
            if not self._sources[login.source]:
                del self._sources[login.source]
        login.ended.set()

    def purge(self, now_s: float) -> None:
        """Let go of those whose time is over."""
        while self._by_code:
            oldest = next(iter(self._by_code.values()))
            if oldest.expires_s > now_s:
                return
            self._drop(oldest)

    def _drop(self, login: Login) -> None:
        self.end(login, "this login is over: it was not approved in time, or a newer one took its place.")

    def waiting(self, now_s: float) -> list[Login]:
        """All that wait, oldest first."""
        return [login for login in self._by_code.values() if login.expires_s > now_s]
