"""`buri policy`: look at a policy file without a server."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from buri.core.errors import ConfigError, SyntaxPlaceError
from buri.policy.document import parse
from buri.policy.problems import PolicyError


@click.group(epilog="\b\nExample:\n  buri policy check policy.hujson")
def command() -> None:
    """Look at a policy file without a server."""


@command.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
def check(file: Path) -> None:
    """Say whether FILE ("-": standard input) is a valid policy, and where not.

    What needs a tailnet stays unchecked: its `tests` and `sshTests`, and the domains of its users.
    """
    try:
        data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}.") from error
    try:
        policy = parse(data)
    except PolicyError as error:
        for problem in error.problems:
            click.echo(f"{file}:{problem.line}:{problem.column}: {problem.message}", err=True)
        count = len(error.problems)
        raise ConfigError(f"{file} is no valid policy: {count} fault{'s' if count > 1 else ''}.") from error
    except SyntaxPlaceError as error:
        raise ConfigError(f"{file}: {error}") from error
    rules = "no rules, which allows everything" if policy.rules is None else _count(len(policy.rules), "rule")
    tests = _count(len(policy.tests) + len(policy.ssh_tests), "test")
    click.echo(f"{file} is a valid policy: {rules}, {_count(len(policy.ssh), 'SSH rule')}, {tests} to run on a server.")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
