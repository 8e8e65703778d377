"""Logins that wait: nobody's flood pushes out an honest one."""

from __future__ import annotations

from random import Random

import pytest

from buri.control.domain.registration import Applicant
from buri.control.logins import MAX_LOGINS, MAX_LOGINS_OF_A_SOURCE, Logins, make_code, source_of
from buri.core.keys import MachinePublic, NodePublic
from buri.wire.tailcfg.node import Hostinfo

HOME = "203.0.113.5"
FLOOD = "198.51.100.7"


class Stage:
    def __init__(self) -> None:
        self.dice = Random(1)
        self.logins = Logins()

    def begin(self, source: str) -> str:
        code = make_code(self.dice.randbytes(10))
        machine, key = MachinePublic(self.dice.randbytes(32)), NodePublic(self.dice.randbytes(32))
        self.logins.begin(code, Applicant(machine, key, Hostinfo(), 130, False), 0.0, source)
        return code


def test_a_flood_from_one_address_pushes_out_its_own() -> None:
    stage = Stage()
    honest = stage.begin(HOME)
    flood = [stage.begin(FLOOD) for _ in range(5000)]

    assert stage.logins.get(honest, 1.0) is not None
    waiting = [login.code for login in stage.logins.waiting(1.0)]
    assert waiting == [honest, *flood[-MAX_LOGINS_OF_A_SOURCE:]]


def test_when_all_places_are_taken_the_address_with_the_most_makes_room() -> None:
    stage = Stage()
    honest = [stage.begin(f"203.0.113.{number}") for number in range(200)]
    for number in range(20):
        for _ in range(MAX_LOGINS_OF_A_SOURCE):
            stage.begin(f"198.51.100.{number}")
    late = stage.begin(HOME)

    assert len(stage.logins.waiting(1.0)) == MAX_LOGINS
    assert all(stage.logins.get(code, 1.0) for code in [*honest, late])


def test_a_place_is_free_again_when_a_login_ended() -> None:
    stage = Stage()
    first = stage.begin(HOME)
    others = [stage.begin(HOME) for _ in range(MAX_LOGINS_OF_A_SOURCE - 1)]
    login = stage.logins.get(others[0], 1.0)
    assert login is not None
    stage.logins.end(login)
    stage.begin(HOME)

    assert stage.logins.get(first, 1.0) is not None


@pytest.mark.parametrize(
    ("peer", "source"),
    [
        ("203.0.113.5:4711", "203.0.113.5"),
        ("[2001:db8:1:2:3:4:5:6]:4711", "2001:db8:1:2::/64"),
        ("", ""),
        ("unix", ""),
    ],
)
def test_a_household_is_an_address_or_a_64(peer: str, source: str) -> None:
    assert source_of(peer) == source
