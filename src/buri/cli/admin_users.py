"""`buri admin users`."""

from __future__ import annotations

import click

from buri.cli.admin_client import client, print_json
from buri.cli.admin_format import print_table, short_time
from buri.wire import adminapi


@click.group("users")
def group() -> None:
    """People, to whom nodes belong."""


@group.command("create")
@click.argument("name")
@click.option("--display-name", default="", help="How to show them; the name when left out.")
@click.option("--json", "as_json", is_flag=True, help="Print the new user as JSON.")
@click.pass_context
def create(context: click.Context, name: str, display_name: str, as_json: bool) -> None:
    """Create a user.

    \b
    Example: buri admin users create alice --display-name "Alice A."
    """
    row = client(context).ask(adminapi.CreateUser(name=name, display_name=display_name), adminapi.UserRow)
    print_json(row) if as_json else click.echo(f"Created user {row.name} (id {row.id}).")


@group.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def list_users(context: click.Context, as_json: bool) -> None:
    """List the users."""
    rows = client(context).ask(adminapi.ListUsers(), list[adminapi.UserRow])
    if as_json:
        print_json(rows)
        return
    print_table(
        ("ID", "NAME", "DISPLAY NAME", "ROLE", "NODES", "CREATED"),
        [(row.id, row.name, row.display_name, row.role, row.nodes, short_time(row.created)) for row in rows],
        empty="No users yet. Create one: buri admin users create NAME",
    )


@group.command("rename")
@click.argument("user")
@click.argument("name")
@click.pass_context
def rename(context: click.Context, user: str, name: str) -> None:
    """Give USER (name or id) another NAME.

    \b
    Example: buri admin users rename alice alice@example.com
    """
    row = client(context).ask(adminapi.RenameUser(user=user, name=name), adminapi.UserRow)
    click.echo(f"User {row.id} is now called {row.name}.")


@group.command("role")
@click.argument("user")
@click.argument("role")
@click.pass_context
def role(context: click.Context, user: str, role: str) -> None:
    """Give USER a ROLE: owner, admin, it-admin, network-admin, billing-admin, auditor or member.

    A policy asks for it (autogroup:admin and its like); it gives no right on this server yet.

    \b
    Example: buri admin users role bob admin
    """
    row = client(context).ask(adminapi.GrantRole(user=user, role=role), adminapi.UserRow)
    click.echo(f"User {row.name} is {row.role} now.")


@group.command("delete")
@click.argument("user")
@click.pass_context
def delete(context: click.Context, user: str) -> None:
    """Delete USER (name or id) and their pre-auth keys; their nodes must be gone."""
    row = client(context).ask(adminapi.DeleteUser(user=user), adminapi.UserRow)
    click.echo(f"Deleted user {row.name}.")
