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
        ("ID", "NAME", "DISPLAY NAME", "ROLE", "NODES", "SIGN-IN", "CREATED"),
        [
            (
                row.id,
                row.name,
                row.display_name,
                row.role,
                row.nodes,
                "yes" if row.can_sign_in else "not yet",
                short_time(row.created),
            )
            for row in rows
        ],
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


@group.command("invite")
@click.argument("name")
@click.option("--display-name", default="", help="How to show them; the name when left out.")
@click.option("--role", default="", help="owner, admin, … [member].")
@click.option("--json", "as_json", is_flag=True, help="Print the link and the user as JSON.")
@click.pass_context
def invite(context: click.Context, name: str, display_name: str, role: str, as_json: bool) -> None:
    """Make a link that lets NAME in the first time; give it to that person and nobody else.

    \b
    Example: buri admin users invite bob@example.com --role admin
    """
    asked = adminapi.InviteUser(name=name, display_name=display_name, role=role)
    link = client(context).ask(asked, adminapi.NewLink)
    print_json(link) if as_json else _tell_link(link)


@group.command("set-password-link")
@click.argument("user")
@click.option("--json", "as_json", is_flag=True, help="Print the link and the user as JSON.")
@click.pass_context
def set_password_link(context: click.Context, user: str, as_json: bool) -> None:
    """Make a link by which USER (name or id) sets a new password.

    \b
    Example: buri admin users set-password-link alice
    """
    link = client(context).ask(adminapi.MakePasswordLink(user=user), adminapi.NewLink)
    print_json(link) if as_json else _tell_link(link)


def _tell_link(link: adminapi.NewLink) -> None:
    days = round(link.lifetime_s / 86400)
    click.echo(
        f"For {link.user.name} ({link.user.role}), once, within {days} day{'s' if days > 1 else ''}:\n{link.url}"
    )


@group.command("set-role")
@click.argument("user")
@click.argument("role")
@click.pass_context
def role(context: click.Context, user: str, role: str) -> None:
    """Give USER a ROLE: owner, admin, it-admin, network-admin, billing-admin, auditor or member.

    Owners and admins administer this server in the browser, everybody else sees and manages their own machines. A policy
    asks for it, too (autogroup:admin and its like).

    \b
    Example: buri admin users set-role bob admin
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


group.add_command(role, "role")
