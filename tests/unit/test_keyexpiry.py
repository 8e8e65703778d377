"""The words about a key's end."""

from __future__ import annotations

import pytest

from buri.core.keyexpiry import DAY_S, in_words, next_warning_s, warning

END_S = 1_800_000_000.0  # 2027-01-15 08:00 UTC


def test_a_key_without_an_end_never_warns() -> None:
    assert in_words(0.0, END_S) == "never"
    assert warning(0.0, END_S) == ""
    assert next_warning_s(0.0, END_S) is None


@pytest.mark.parametrize(
    ("left_s", "words"),
    [
        (180 * DAY_S, "in 180 days (2027-01-15)"),
        (DAY_S, "in 1 day (2027-01-15)"),
        (DAY_S - 1, "in 23 hours (2027-01-15)"),
        (61, "in 1 minute (2027-01-15)"),
        (5, "in less than a minute (2027-01-15)"),
        (0, "ended 2027-01-15"),
        (-DAY_S, "ended 2027-01-15"),
    ],
)
def test_the_end_is_told_in_the_largest_whole_unit(left_s: float, words: str) -> None:
    assert in_words(END_S, END_S - left_s) == words


def test_warnings_come_at_14_7_and_1_days_and_cease_at_the_end() -> None:
    now_s, heard = END_S - 180 * DAY_S, []
    while (due_s := next_warning_s(END_S, now_s)) is not None:
        now_s = due_s
        heard.append((END_S - now_s) / DAY_S)
        assert "buri up --force-reauth" in warning(END_S, now_s)
    assert heard == [14, 7, 1]
    assert warning(END_S, END_S - 14 * DAY_S - 1) == ""
    assert warning(END_S, END_S - 7 * DAY_S).startswith("This machine's key ends within 7 days, in 7 days")
    assert warning(END_S, END_S - 60.0).startswith("This machine's key ends within a day, in 1 minute")
    assert warning(END_S, END_S) == ""
