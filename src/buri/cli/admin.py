"""`buri admin`: users, nodes, keys and policy of the control server on this machine, over its admin socket."""

from __future__ import annotations

from pathlib import Path

import click

from buri.cli import admin_nodes, admin_policy, admin_preauthkeys, admin_users
from buri.cli.admin_client import DEFAULT_STATE_DIR, Client
from buri.wire.adminapi import SOCKET_NAME


@click.group("admin")
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_STATE_DIR,
    show_default=True,
    envvar="BURI_SERVER_STATE_DIR",
    help="The server's state directory (or $BURI_SERVER_STATE_DIR).",
)
@click.option(
    "--socket", "socket_path", type=click.Path(path_type=Path), default=None, help="Its admin socket, when elsewhere."
)
@click.pass_context
def command(context: click.Context, state_dir: Path, socket_path: Path | None) -> None:
    """Administer the control server that runs on this machine.

    \b
    Examples:
      sudo buri admin users create alice
      sudo buri admin preauthkeys create --user alice
      sudo buri admin nodes list
      sudo buri admin policy edit
    """
    context.obj = Client(socket_path or state_dir / SOCKET_NAME)


command.add_command(admin_users.group)
command.add_command(admin_nodes.group)
command.add_command(admin_preauthkeys.group)
command.add_command(admin_policy.group)
