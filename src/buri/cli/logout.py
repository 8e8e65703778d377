"""`buri logout`: leave the tailnet."""

from __future__ import annotations

import click

from buri.cli.context import App, pass_app
from buri.cli.flags import GoCommand


@click.command(cls=GoCommand, example="sudo buri logout")
@pass_app
def command(app: App, /) -> None:
    """Leave the tailnet: the server expires this node's key, and the node forgets it.

    To go offline and come back as the same node, use "buri down".
    """
    app.client.logout()
