"""`buri admin preauthkeys`."""

from __future__ import annotations

import click

from buri.cli.admin_client import client, print_json
from buri.cli.admin_format import duration, print_table, short_time
from buri.wire import adminapi


@click.group("preauthkeys")
def group() -> None:
    """Keys by which nodes join without a person at the browser."""


@group.command("create")
@click.option("--user", default="", help="To whom the nodes will belong (name or id).")
@click.option("--tags", default="", metavar="TAG,…", help="Tags of the nodes instead, e.g. tag:server,tag:prod.")
@click.option("--reusable", is_flag=True, help="Good for any number of nodes; else for one.")
@click.option("--ephemeral", is_flag=True, help="Its nodes are removed some time after they go offline.")
@click.option(
    "--expiration",
    "lifetime_s",
    type=duration,
    default="1h",
    show_default=True,
    help="How long it is good, or never.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the key and its facts as JSON.")
@click.pass_context
def create(
    context: click.Context,
    user: str,
    tags: str,
    reusable: bool,
    ephemeral: bool,
    lifetime_s: float,
    as_json: bool,
) -> None:
    """Create a key and print it, this once: the server keeps only a digest.

    \b
    Examples:
      buri admin preauthkeys create --user alice
      buri admin preauthkeys create --tags tag:ci --reusable --ephemeral --expiration 90d
    """
    request = adminapi.CreateAuthKey(
        user=user,
        tags=[tag.strip() for tag in tags.split(",") if tag.strip()],
        reusable=reusable,
        ephemeral=ephemeral,
        lifetime_s=lifetime_s,
    )
    row = client(context).ask(request, adminapi.NewAuthKey)
    print_json(row) if as_json else click.echo(row.key)


@group.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def list_keys(context: click.Context, as_json: bool) -> None:
    """List the keys by their public prefix."""
    rows = client(context).ask(adminapi.ListAuthKeys(), list[adminapi.AuthKeyRow])
    if as_json:
        print_json(rows)
        return
    print_table(
        ("ID", "PREFIX", "OWNER", "KIND", "STATE", "CREATED", "EXPIRY"),
        [
            (
                row.id,
                row.prefix,
                ",".join(row.tags) or row.user,
                _kind(row),
                row.state,
                short_time(row.created),
                short_time(row.expiry, otherwise="never"),
            )
            for row in rows
        ],
        empty="No pre-auth keys. Create one: buri admin preauthkeys create --user USER",
    )


@group.command("revoke")
@click.argument("key")
@click.pass_context
def revoke(context: click.Context, key: str) -> None:
    """Let nobody join by KEY (its id or prefix) any more. Nodes that did stay."""
    row = client(context).ask(adminapi.RevokeAuthKey(key=key), adminapi.AuthKeyRow)
    click.echo(f"Revoked pre-auth key {row.id} ({row.prefix}).")


def _kind(row: adminapi.AuthKeyRow) -> str:
    words = ["reusable" if row.reusable else "single use"]
    if row.ephemeral:
        words.append("ephemeral")
    return ", ".join(words)
