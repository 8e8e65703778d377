"""Go's ways of writing flags, on click."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from buri.cli.flags import DURATION, GoCommand, switch


@click.command(cls=GoCommand, example="probe 1")
@click.argument("words", nargs=-1)
@click.option("-c", "count", type=int, default=1)
@click.option("--timeout", type=DURATION, default=5.0)
@switch("--direct", default=True, help="Direct.")
@switch("--qr", help="QR.")
@switch("--maybe", default=None, help="Maybe.")
def probe(words: tuple[str, ...], count: int, timeout: float, direct: bool, qr: bool, maybe: bool | None) -> None:
    click.echo(f"{words} {count} {timeout:g} {direct} {qr} {maybe}")


@pytest.mark.parametrize(
    ("line", "printed"),
    [
        ("", "() 1 5 True False None"),
        ("--qr host", "('host',) 1 5 True True None"),
        ("host --direct=false", "('host',) 1 5 False False None"),
        ("--maybe=false", "() 1 5 True False False"),
        ("-maybe -qr", "() 1 5 True True True"),
        ("-c=3 host", "('host',) 3 5 True False None"),
        ("-c 3 host", "('host',) 3 5 True False None"),
        ("-timeout=1m30s", "() 1 90 True False None"),
        ("--timeout 500ms", "() 1 0.5 True False None"),
        ("--timeout=2", "() 1 2 True False None"),
        ("-- --qr", "('--qr',) 1 5 True False None"),
    ],
)
def test_flags_as_go_takes_them(line: str, printed: str) -> None:
    done = CliRunner().invoke(probe, line)
    assert done.output == printed + "\n"


@pytest.mark.parametrize("line", ["--timeout=soon", "--timeout=5x", "--direct=perhaps", "--no-such"])
def test_a_flag_that_cannot_be_meant_ends_with_usage(line: str) -> None:
    assert CliRunner().invoke(probe, line).exit_code == 2


def test_help_shows_the_example() -> None:
    assert "Example:\n    probe 1" in CliRunner().invoke(probe, "--help").output
