"""The control server's clock, kept by a machine whose own is set to and fro."""

from __future__ import annotations

from buri.node.serverclock import TOLERATED_S, ServerClock

TRUE_S = 1_800_000_000.0


class Machine:
    """A wall clock that anybody sets, and a steady one."""

    def __init__(self, own_s: float) -> None:
        self.own_s = own_s
        self.steady_s = 5.0
        self.clock = ServerClock(lambda: self.own_s, lambda: self.steady_s)

    def pass_by(self, seconds: float) -> None:
        self.own_s += seconds
        self.steady_s += seconds

    def hear(self, server_s: float) -> None:
        self.clock.take(server_s - self.own_s)


def test_until_the_server_has_spoken_our_own_clock_is_all_there_is() -> None:
    machine = Machine(1000.0)
    assert machine.clock.wall_s() == 1000.0
    assert machine.clock.warning == ""


def test_a_clock_years_off_is_told_and_the_server_s_goes_on_whatever_is_set() -> None:
    machine = Machine(1000.0)
    machine.hear(TRUE_S)
    machine.pass_by(60)
    assert machine.clock.wall_s() == TRUE_S + 60
    assert machine.clock.warning == (
        "This machine's clock says 1970-01-01T00:17:40Z, the control server's 2027-01-15T08:01:00Z: "
        "set it (timedatectl set-ntp true)."
    )
    machine.own_s = TRUE_S + 60  # somebody sets it right
    assert machine.clock.wall_s() == TRUE_S + 60
    assert machine.clock.warning == ""


def test_small_differences_are_nobody_s_business_and_an_old_word_is_no_news() -> None:
    machine = Machine(TRUE_S)
    machine.hear(TRUE_S + TOLERATED_S - 1)
    assert machine.clock.warning == ""
    offset_s = TOLERATED_S - 1
    machine.own_s -= 86400 * 365
    machine.clock.take(offset_s)  # a later message without a time repeats the old measurement
    assert machine.clock.wall_s() == TRUE_S + TOLERATED_S - 1
