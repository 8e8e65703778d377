"""`buri admin policy`: the tailnet's policy on the control server of this machine."""

from __future__ import annotations

import contextlib
import getpass
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import click

from buri.cli.admin_client import Refused, client, print_json
from buri.cli.admin_format import print_table, short_time
from buri.core.errors import BuriError, ConfigError, StateError
from buri.wire import adminapi

T = TypeVar("T")
_FILE = click.Path(path_type=Path, dir_okay=False, allow_dash=True)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("policy")
def group() -> None:
    """Who may reach what: the tailnet's policy, in the language of Tailscale's policy files.

    \b
    Examples:
      buri admin policy get > policy.hujson
      buri admin policy diff policy.hujson
      buri admin policy set policy.hujson
      buri admin policy explain laptop server:22
    """


@group.command("get", short_help="Print the policy.")
@click.option("--version", type=int, default=0, help="An older one by its number; see: buri admin policy history")
@_JSON
@click.pass_context
def get(context: click.Context, version: int, as_json: bool) -> None:
    """Print the policy. With --json also its number, who set it, and the etag for `set --if-match`."""
    policy = client(context).ask(adminapi.GetPolicy(version=version), adminapi.PolicyText)
    print_json(policy) if as_json else click.echo(policy.text, nl=not policy.text.endswith("\n"))


@group.command("set", short_help="Check a policy and put it in force.")
@click.argument("file", type=_FILE)
@click.option("--if-match", default="", metavar="ETAG", help="Only if the policy in force still has this etag.")
@_JSON
@click.pass_context
def set_policy(context: click.Context, file: Path, if_match: str, as_json: bool) -> None:
    """Check FILE ("-": standard input) and put it in force; nodes know within a second.

    A policy with a fault, or whose tests fail, is refused, and the old one stays. Exit codes: 2 the policy is
    wrong, 1 --if-match names another than the one in force.

    \b
    Examples:
      buri admin policy set policy.hujson
      buri admin policy set policy.hujson --if-match "$(buri admin policy get --json | jq -r .etag)"
    """
    request = adminapi.SetPolicy(text=_read(file), author=_author(), if_match=if_match)
    row = _asked(str(file), lambda: client(context).ask(request, adminapi.PolicyText))
    print_json(row) if as_json else click.echo(f"Policy {row.version} is in force.")


@group.command("check", short_help="Say whether a policy could be put in force.")
@click.argument("file", type=_FILE)
@_JSON
@click.pass_context
def check(context: click.Context, file: Path, as_json: bool) -> None:
    """Say whether FILE could be put in force: its language, and its tests against the tailnet as it is.

    Exit code 2: it could not, and every fault is shown with line and column. `buri policy check` does without a server.
    """
    request = adminapi.CheckPolicy(text=_read(file))
    row = _asked(str(file), lambda: client(context).ask(request, adminapi.PolicySummary))
    print_json(row) if as_json else click.echo(f"{file} can be put in force: {_summary(row)}.")


@group.command("test", short_help="Run the tests of the policy in force again.")
@_JSON
@click.pass_context
def test(context: click.Context, as_json: bool) -> None:
    """Run the tests of the policy in force again: the tailnet may have changed since it was set. Exit code 2: some fail."""
    row = _asked("policy", lambda: client(context).ask(adminapi.CheckPolicy(), adminapi.PolicySummary))
    print_json(row) if as_json else click.echo(f"All pass: {_summary(row)}.")


@group.command("explain", short_help="Say by which rule a node reaches another, or not.")
@click.argument("src")
@click.argument("dst", metavar="DST[:PORT]")
@click.option("--proto", default="", metavar="PROTO", help="tcp, udp, icmp, …; without it any of these will do.")
@_JSON
@click.pass_context
def explain(context: click.Context, src: str, dst: str, proto: str, as_json: bool) -> None:
    """Say whether SRC reaches DST, and by which rule, or which rule almost allows it and what it lacks.

    SRC is a node (name, number or address); DST too, or any address, such as one behind a subnet router. Exit code
    1: it does not.

    \b
    Examples:
      buri admin policy explain laptop server:22
      buri admin policy explain 100.64.0.3 [fd7a:115c:a1e0::2]:443 --proto tcp
    """
    host, port = _host_and_port(dst)
    row = client(context).ask(
        adminapi.ExplainPolicy(src=src, dst=host, port=port, protocol=proto), adminapi.ExplanationRow
    )
    if as_json:
        print_json(row)
    else:
        click.echo(row.sentence)
        for place in row.rules or ([row.nearest] if row.nearest is not None else []):
            if place.line:
                click.echo(f"  {place.line}: {place.text}")
        for note in row.notes:
            click.echo(f"But: {note}")
    context.exit(0 if row.allowed else 1)


@group.command("diff", short_help="Show who would gain and lose which ports.")
@click.argument("file", type=_FILE)
@_JSON
@click.pass_context
def diff(context: click.Context, file: Path, as_json: bool) -> None:
    """Show which nodes would gain and lose which ports towards which, were FILE in force."""
    request = adminapi.DiffPolicy(text=_read(file))
    rows = _asked(str(file), lambda: client(context).ask(request, list[adminapi.PairRow]))
    print_json(rows) if as_json else _print_pairs(rows)


@group.command("history", short_help="List the policies that are remembered.")
@_JSON
@click.pass_context
def history(context: click.Context, as_json: bool) -> None:
    """List the policies that the server remembers, the newest last.

    \b
    Back to an older one: buri admin policy get --version 3 | buri admin policy set -
    """
    rows = client(context).ask(adminapi.ListPolicies(), list[adminapi.PolicyRow])
    if as_json:
        print_json(rows)
        return
    print_table(
        ("VERSION", "SET", "BY", "ETAG"),
        [(row.version or "default", short_time(row.created), row.author or "-", row.etag[:12]) for row in rows],
        empty="No policy.",
    )


@group.command("edit", short_help="Edit the policy in your editor.")
@click.option("--yes", is_flag=True, help="Do not ask before it is put in force.")
@click.pass_context
def edit(context: click.Context, yes: bool) -> None:
    """Edit the policy in $VISUAL or $EDITOR; what it gives and takes is shown before it is put in force.

    With a fault in it the editor opens again, your text kept. If somebody else changed the policy meanwhile, nothing
    is overwritten.
    """
    server = client(context)
    old = server.ask(adminapi.GetPolicy(), adminapi.PolicyText)
    if old.file:
        raise StateError(f"This server takes its policy from {old.file}.", remedy="Edit that file.")
    text = old.text
    while True:
        edited = click.edit(text, extension=".hujson", require_save=False)
        if edited is None or edited == old.text:
            click.echo("Nothing changed.")
            return
        text = edited
        try:
            pairs = server.ask(adminapi.DiffPolicy(text=text), list[adminapi.PairRow])
        except Refused as refusal:
            _print_faults("policy", refusal)
            with _keeping(text):
                if not click.confirm("Edit again?", default=True, err=True):
                    raise
            continue
        _print_pairs(pairs)
        if yes or click.confirm("Put it in force?", default=True):
            break
        if not click.confirm("Edit again?", default=False):
            click.echo("The old policy stays.")
            return
    with _keeping(text):
        row = server.ask(adminapi.SetPolicy(text=text, author=_author(), if_match=old.etag), adminapi.PolicyText)
    click.echo(f"Policy {row.version} is in force.")


@contextlib.contextmanager
def _keeping(text: str) -> Iterator[None]:
    """Leave the text in a file when the block ends in an error: somebody typed it."""
    try:
        yield
    except (BuriError, click.Abort):
        with tempfile.NamedTemporaryFile("w", prefix="policy-", suffix=".hujson", delete=False) as file:
            file.write(text)
        click.echo(f"Your text is kept in {file.name}.", err=True)
        raise


def _asked(name: str, ask: Callable[[], T]) -> T:
    """Ask about a text; its faults are printed as NAME:LINE:COLUMN: MESSAGE, and their number is the error."""
    try:
        return ask()
    except Refused as refusal:
        if not refusal.faults:
            raise
        _print_faults(name, refusal)
        count = len(refusal.faults)
        raise ConfigError(f"{name} is refused: {count} fault{'s' if count > 1 else ''}.") from refusal


def _print_faults(name: str, refusal: Refused) -> None:
    if not refusal.faults:
        click.echo(str(refusal), err=True)
    for fault in refusal.faults:
        click.echo(f"{name}:{fault.line}:{fault.column}: {fault.message}", err=True)


def _print_pairs(rows: list[adminapi.PairRow]) -> None:
    print_table(
        ("FROM", "TO", "GAINS", "LOSES"),
        [(row.src, row.dst, row.gained or "-", row.lost or "-") for row in rows],
        empty="No node gains or loses a port towards another.",
    )


def _summary(row: adminapi.PolicySummary) -> str:
    rules = "no rules, which allows everything" if row.rules < 0 else _count(row.rules, "rule")
    return f"{rules}, {_count(row.ssh_rules, 'SSH rule')}, {_count(row.tests, 'test')}, {_count(row.nodes, 'node')}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _read(file: Path) -> str:
    try:
        data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8 text.") from error


def _author() -> str:
    """Who does it: the person behind sudo, where there is one."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return ""


def _host_and_port(text: str) -> tuple[str, int]:
    """HOST, HOST:PORT or [IPV6]:PORT; a bare IPv6 address has no port. Port 0 stands for none."""
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.endswith("]")) or port == "*":
        return (host if port == "*" else text).strip("[]"), 0
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise click.UsageError(f"{port!r} is no port.")
    return host.strip("[]"), int(port)
