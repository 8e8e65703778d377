"""How long this node's key still lasts, in words: shown by `status`, warned of 14, 7 and 1 days before its end.

A key that never ends has expiry 0. Control servers give the end as `Node.KeyExpiry` (wire reference, "Node"); a
server may push it away, or lift it, at any time and without a login, so words are made from the newest netmap.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime

DAY_S = 86400.0
WARN_DAYS = (14, 7, 1)
REMEDY = (
    "Sign in again before then with `buri up --force-reauth`, or have the tailnet's administrator extend it "
    "or disable key expiry for this machine"
)


def in_words(expiry_s: float, now_s: float) -> str:
    """`never`, `ended 2027-05-23`, or `in 180 days (2027-05-23)`; the date is UTC's."""
    if not expiry_s:
        return "never"
    date = datetime.fromtimestamp(expiry_s, UTC).strftime("%Y-%m-%d")
    return f"in {_left(expiry_s - now_s)} ({date})" if expiry_s > now_s else f"ended {date}"


def warning(expiry_s: float, now_s: float) -> str:
    """The warning that is due, "" for none: from 14 days before the end on; it changes at 7 days and at 1 day."""
    left_s = expiry_s - now_s
    due = [days for days in WARN_DAYS if 0 < left_s <= days * DAY_S]
    if not expiry_s or not due:
        return ""
    days = min(due)
    within = "within a day" if days == 1 else f"within {days} days"
    return f"This machine's key ends {within}, {in_words(expiry_s, now_s)}. {REMEDY}."


def next_warning_s(expiry_s: float, now_s: float) -> float | None:
    """When the next warning falls due; None when there is none to come."""
    coming = [expiry_s - days * DAY_S for days in WARN_DAYS if expiry_s and expiry_s - days * DAY_S > now_s]
    return min(coming, default=None)


def _left(left_s: float) -> str:
    for unit_s, name in ((DAY_S, "day"), (3600.0, "hour"), (60.0, "minute")):
        if left_s >= unit_s:
            count = math.floor(left_s / unit_s)
            return f"{count} {name}{'' if count == 1 else 's'}"
    return "less than a minute"
