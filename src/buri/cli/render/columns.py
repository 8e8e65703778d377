"""Aligned columns and numbers as Go writes them, so that our output lines up with what people know."""

from __future__ import annotations

from collections.abc import Sequence

from buri.core.plaintext import plain


def columns(rows: Sequence[Sequence[str]], *, padding: int = 2, least: int = 0) -> list[str]:
    """Lines of cells, each column as wide as its widest cell and `padding`, at least `least`; no trailing blanks."""
    rows = [[plain(cell) for cell in row] for row in rows]  # most cells are the words of others
    widths: list[int] = []
    for row in rows:
        for place, cell in enumerate(row):
            if place == len(widths):
                widths.append(0)
            widths[place] = max(widths[place], len(cell))
    return [
        "".join(c.ljust(max(w + padding, least)) for c, w in zip(row, widths, strict=False)).rstrip() for row in rows
    ]


def go_duration(seconds: float, *, round_to_ms: float = 1.0) -> str:
    """`39ms`, `1.2s`, `500µs`: a duration of less than a minute as Go prints it, rounded half away from zero."""
    step_us = round(round_to_ms * 1000)
    total_us = (round(seconds * 1e6) + step_us // 2) // step_us * step_us
    if total_us == 0:
        return "0s"
    if total_us < 1000:
        return f"{total_us}µs"
    if total_us < 1_000_000:
        return _trim(total_us / 1000) + "ms"
    if total_us < 60_000_000:
        return _trim(total_us / 1e6) + "s"
    minutes, rest_us = divmod(total_us, 60_000_000)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + f"{minutes}m{_trim(rest_us / 1e6)}s"


def _trim(number: float) -> str:
    return f"{number:.6f}".rstrip("0").rstrip(".")
