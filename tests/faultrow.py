"""A row of the table of faults (`faults.py`)."""

from __future__ import annotations

from typing import NamedTuple

U, N = "tests/unit/", "tests/netns/"


class Fault(NamedTuple):
    """`sender` wrote `input`; when it is wrong it `gets` that, as the tests of `proof` show."""

    input: str
    sender: str
    gets: str
    proof: tuple[str, ...]
    covers: tuple[str, ...]
