"""`buri admin nodes`. A NODE is an id, a name, a tailnet address or a stable id."""

from __future__ import annotations

import click

from buri.cli.admin_client import client, print_json
from buri.cli.admin_format import duration, print_table, short_time
from buri.core.plaintext import plain
from buri.wire import adminapi


@click.group("nodes")
def group() -> None:
    """The machines of the tailnet. A NODE is an id, a name, or a tailnet address."""


@group.command("list")
@click.option("--user", default="", help="Only this user's nodes.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def list_nodes(context: click.Context, user: str, as_json: bool) -> None:
    """List the nodes."""
    rows = client(context).ask(adminapi.ListNodes(user=user), list[adminapi.NodeRow])
    if as_json:
        print_json(rows)
        return
    print_table(
        ("ID", "NAME", "OWNER", "IPV4", "IPV6", "STATE", "LAST SEEN", "KEY EXPIRY"),
        [
            (row.id, row.name, _owner(row), *row.addresses, _state(row), short_time(row.last_seen), _expiry(row))
            for row in rows
        ],
        empty="No nodes yet. Make a key for the first: buri admin preauthkeys create --user USER",
    )


@group.command("show")
@click.argument("node")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def show(context: click.Context, node: str, as_json: bool) -> None:
    """Show everything about NODE."""
    row = client(context).ask(adminapi.ShowNode(node=node), adminapi.NodeRow)
    if as_json:
        print_json(row)
        return
    facts = [
        ("Id", f"{row.id} ({row.stable_id})"),
        ("Name", row.fqdn),
        ("Host", f"{row.hostname}, {row.os or 'unknown system'}, client {row.version or 'unknown'}"),
        ("Owner", _owner(row)),
        ("Addresses", ", ".join(row.addresses)),
        ("State", _state(row)),
        ("Last seen", short_time(row.last_seen)),
        ("Created", short_time(row.created)),
        ("Key expiry", _expiry(row)),
        ("Home relay", row.home_derp or "none yet"),
        ("Endpoints", ", ".join(row.endpoints) or "none"),
        ("Node key", row.node_key),
        ("Machine key", row.machine_key),
    ]
    for name, value in facts:
        click.echo(f"{name + ':':<13}{plain(str(value))}")


@group.command("approve")
@click.argument("code")
@click.option("--user", required=True, help="To whom the node will belong (name or id).")
@click.pass_context
def approve(context: click.Context, code: str, user: str) -> None:
    """Let in the node that waits under CODE (the end of its login address).

    \b
    Example: buri admin nodes approve k3mnxd7w2pqrstuv --user alice
    """
    row = client(context).ask(adminapi.ApproveNode(code=code, user=user), adminapi.NodeRow)
    click.echo(f"{row.name} joined as node {row.id} of {row.user}: {', '.join(row.addresses)}")


@group.command("reject")
@click.argument("code")
@click.pass_context
def reject(context: click.Context, code: str) -> None:
    """Turn away the node that waits under CODE."""
    client(context).ask(adminapi.RejectNode(code=code), type(None))
    click.echo("Turned away.")


@group.command("pending")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def pending(context: click.Context, as_json: bool) -> None:
    """List the logins that wait for approval."""
    rows = client(context).ask(adminapi.ListPending(), list[adminapi.PendingRow])
    if as_json:
        print_json(rows)
        return
    print_table(
        ("CODE", "HOST", "SYSTEM", "MACHINE KEY"),
        [(row.code, row.hostname, row.os, row.machine_key[:17] + "…") for row in rows],
        empty="No login waits for approval.",
    )


@group.command("rename")
@click.argument("node")
@click.argument("name")
@click.pass_context
def rename(context: click.Context, node: str, name: str) -> None:
    """Call NODE by another NAME, which its host name no longer changes; "" gives it back to the host name.

    \b
    Example: buri admin nodes rename 3 printer
    """
    row = client(context).ask(adminapi.RenameNode(node=node, name=name), adminapi.NodeRow)
    click.echo(f"Node {row.id} is now {row.fqdn}.")


@group.command("tag")
@click.argument("node")
@click.argument("tags", nargs=-1, required=True)
@click.pass_context
def tag(context: click.Context, node: str, tags: tuple[str, ...]) -> None:
    """Let NODE belong to TAGS (those it had are replaced) instead of a person. Its key then never expires.

    \b
    Example: buri admin nodes tag 3 tag:web tag:prod
    """
    row = client(context).ask(adminapi.TagNode(node=node, tags=list(tags)), adminapi.NodeRow)
    click.echo(f"Node {row.id} ({row.name}) is {', '.join(row.tags)} now.")


@group.command("expire")
@click.argument("node")
@click.option("--in", "after_s", type=duration, default="0", help="Not now but after this time (90m, 30d).")
@click.option("--never", is_flag=True, help="Let its key live for ever; revives an expired node.")
@click.pass_context
def expire(context: click.Context, node: str, after_s: float, never: bool) -> None:
    """End NODE's key, so that it must log in again.

    \b
    Examples:
      buri admin nodes expire laptop
      buri admin nodes expire laptop --in 30d
      buri admin nodes expire laptop --never
    """
    if never and after_s:
        raise click.UsageError("--never and --in exclude each other.")
    _say_expiry(client(context).ask(adminapi.ExpireNode(node=node, after_s=after_s, never=never), adminapi.NodeRow))


@group.group("expiry")
def expiry() -> None:
    """Let NODE's key live for ever, or for longer. Works after the key has ended too, with no hand on the machine.

    \b
    Examples:
      buri admin nodes expiry disable home
      buri admin nodes expiry extend laptop 90d
    """


@expiry.command("disable")
@click.argument("node")
@click.pass_context
def disable_expiry(context: click.Context, node: str) -> None:
    """Let NODE's key live for ever; if it has ended, the machine comes back by itself."""
    _say_expiry(client(context).ask(adminapi.NodeExpiry(node=node, enabled=False), adminapi.NodeRow))


@expiry.command("enable")
@click.argument("node")
@click.pass_context
def enable_expiry(context: click.Context, node: str) -> None:
    """Let NODE's key end again, after the tailnet's usual time from now."""
    _say_expiry(client(context).ask(adminapi.NodeExpiry(node=node), adminapi.NodeRow))


@expiry.command("extend")
@click.argument("node")
@click.argument("time", type=duration)
@click.pass_context
def extend_expiry(context: click.Context, node: str, time: float) -> None:
    """Let NODE's key last TIME (90d) longer; one that has ended lasts TIME from now, and the machine comes back."""
    if not time:
        raise click.UsageError("TIME must be more than nothing, such as 90d; for ever is: expiry disable NODE.")
    _say_expiry(client(context).ask(adminapi.NodeExpiry(node=node, extend_s=time), adminapi.NodeRow))


def _say_expiry(row: adminapi.NodeRow) -> None:
    if row.expired:
        click.echo(f"The key of {row.name} has ended; it must log in again.")
    elif row.expiry:
        click.echo(f"The key of {row.name} will end at {short_time(row.expiry)} UTC.")
    else:
        click.echo(f"The key of {row.name} does not expire.")


@group.command("delete")
@click.argument("node")
@click.pass_context
def delete(context: click.Context, node: str) -> None:
    """Remove NODE from the tailnet. Its addresses are not given to another."""
    row = client(context).ask(adminapi.DeleteNode(node=node), adminapi.NodeRow)
    click.echo(f"Deleted node {row.id} ({row.name}).")


def _owner(row: adminapi.NodeRow) -> str:
    return ",".join(row.tags) or row.user


def _state(row: adminapi.NodeRow) -> str:
    words = ["expired" if row.expired else "online" if row.online else "offline"]
    if row.ephemeral:
        words.append("ephemeral")
    if not row.authorized:
        words.append("not authorized")
    return ", ".join(words)


def _expiry(row: adminapi.NodeRow) -> str:
    return short_time(row.expiry, otherwise="never")
