"""Logins that wait for a person: a code each, bounded in number and time, woken when an administrator decides.

They live in memory. A server that was restarted learns a login again from the node's next follow-up: the request
holds all that the login is, and the code in it is bound to the machine that sent it.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict

import msgspec

from buri.control.domain.registration import Applicant

CODE_ENTROPY = 10
CODE_TTL_S = 3600.0
MAX_LOGINS = 1024
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"  # 32 signs without 0, 1, l, o
_CODE = re.compile(r"[a-km-np-z2-9]{16}")


class Login(msgspec.Struct, eq=False):
    """One waiting login. `ended` is set when it was approved or refused; `refusal` then says why, "" = approved."""

    code: str
    applicant: Applicant
    expires_s: float
    ended: asyncio.Event
    refusal: str = ""


def make_code(entropy: bytes) -> str:
    """Sixteen signs of 5 bits from 10 random bytes."""
    number = int.from_bytes(entropy[:CODE_ENTROPY], "big")
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(0, 80, 5))


def code_of(followup: str) -> str:
    """The code at the end of an AuthURL; "" when that holds none."""
    code = followup.rstrip("/").rpartition("/")[2]
    return code if _CODE.fullmatch(code) else ""


class Logins:
    """The waiting logins by code."""

    def __init__(self) -> None:
        self._by_code: OrderedDict[str, Login] = OrderedDict()

    def begin(self, code: str, applicant: Applicant, now_s: float) -> Login:
        """Start one; the machine's older logins and, past the bound, the oldest ones end."""
        self.purge(now_s)
        for login in [x for x in self._by_code.values() if x.applicant.machine == applicant.machine]:
            self._drop(login)
        while len(self._by_code) >= MAX_LOGINS:
            self._drop(next(iter(self._by_code.values())))
        login = Login(code, applicant, now_s + CODE_TTL_S, asyncio.Event())
        self._by_code[code] = login
        return login

    def get(self, code: str, now_s: float) -> Login | None:
        login = self._by_code.get(code)
        return None if login is None or login.expires_s <= now_s else login

    def end(self, login: Login, refusal: str = "") -> None:
        """Wake whoever waits; the code is spent."""
        login.refusal = refusal
        self._by_code.pop(login.code, None)
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
