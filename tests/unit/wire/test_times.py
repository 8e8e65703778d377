"""RFC 3339 as Go writes and reads it, the absurd included."""

from __future__ import annotations

import pytest

from buri.wire.tailcfg.base import LAST_S, ZERO_TIME, format_time, parse_time


@pytest.mark.parametrize(
    ("wall_s", "text"),
    [
        (0.0, ZERO_TIME),
        (1_800_000_000.0, "2027-01-15T08:00:00Z"),
        (1_800_000_000.5, "2027-01-15T08:00:00.5Z"),
        (-1.0, "1969-12-31T23:59:59Z"),
        (LAST_S, "9999-12-31T23:59:59Z"),
    ],
)
def test_a_time_goes_there_and_back(wall_s: float, text: str) -> None:
    assert format_time(wall_s) == text
    assert parse_time(text) == wall_s


@pytest.mark.parametrize("wall_s", [LAST_S + 1, 1e15, 1e300, float("inf")])
def test_a_time_past_all_years_is_the_last_one(wall_s: float) -> None:
    assert format_time(wall_s) == "9999-12-31T23:59:59Z"


@pytest.mark.parametrize(
    "text",
    ["soon", "2026-13-01T00:00:00Z", "2026-01-01T25:00:00Z", "0000-01-01T00:00:00Z", "0001-01-01T00:00:01", "\0"],
)
def test_what_is_no_time_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_time(text)


def test_nanoseconds_and_zones_read() -> None:
    assert parse_time("2027-01-15T08:00:00.123456789Z") == pytest.approx(1_800_000_000.123456)
    assert parse_time("2027-01-15T10:00:00+02:00") == 1_800_000_000.0
