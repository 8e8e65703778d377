"""`buri down`: go offline, staying logged in."""

from __future__ import annotations

import click

from buri.cli.context import App, pass_app
from buri.cli.flags import GoCommand
from buri.wire.localapi import mask


@click.command(cls=GoCommand, example="sudo buri down")
@pass_app
def command(app: App, /) -> None:
    """Go offline, staying logged in; "buri up" brings the node back."""
    if app.client.status(peers=False).backend_state == "Stopped":
        click.echo("Buri was already stopped.", err=True)
        return
    app.client.edit_prefs(mask(want_running=False))
