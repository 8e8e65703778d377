"""`buri version`."""

from __future__ import annotations

import click

from buri import __version__
from buri.cli.context import App, pass_app
from buri.cli.flags import GoCommand, switch
from buri.cli.render.asjson import pretty
from buri.wire.localapi import CAPABILITY_VERSION


@click.command(cls=GoCommand, example="buri version --daemon")
@switch("--daemon", help="Ask the running daemon for its version too.")
@switch("--json", "as_json", help="Show it in JSON.")
@pass_app
def command(app: App, /, daemon: bool, as_json: bool) -> None:
    """Show Buri's version."""
    theirs = app.client.status(peers=False).version if daemon else ""
    if as_json:
        found: dict[str, object] = {"majorMinorPatch": __version__, "short": __version__, "long": __version__}
        if daemon:
            found["daemonLong"] = theirs
        click.echo(pretty({**found, "cap": CAPABILITY_VERSION}))
    elif daemon:
        click.echo(f"Client: {__version__}\nDaemon: {theirs}")
    else:
        click.echo(__version__)
