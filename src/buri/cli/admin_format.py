"""How `buri admin` reads durations and prints tables."""

from __future__ import annotations

import re
from collections.abc import Sequence

import click

from buri.core.plaintext import plain

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhdwy])")


def duration(text: str) -> float:
    """`90m`, `24h`, `30d`, `1d12h` in seconds; `never` or `0` is 0. An option type for click."""
    text = text.strip().lower()
    if text in ("0", "never"):
        return 0.0
    if not text or _PART.sub("", text):
        raise click.BadParameter(f"{text!r} is not a duration: write 90m, 24h, 30d, or never.")
    return sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(text))


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str) -> None:
    """Columns two spaces apart; `empty` is said instead when there is no row."""
    if not rows:
        click.echo(empty)
        return
    lines = [list(header), *([plain(str(cell)) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def short_time(text: str, *, otherwise: str = "-") -> str:
    """RFC 3339 to `2026-05-01 12:30` (UTC)."""
    return text[:16].replace("T", " ") if text else otherwise
