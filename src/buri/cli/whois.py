"""`buri whois`: the machine and the user behind an address."""

from __future__ import annotations

import click

from buri.cli.context import App, pass_app
from buri.cli.flags import GoCommand, switch
from buri.cli.render.asjson import pretty
from buri.cli.render.whois import render_whois


@click.command(cls=GoCommand, example="buri whois 100.64.0.2")
@click.argument("address", metavar="IP[:PORT]")
@click.option(
    "--proto", type=click.Choice(["", "tcp", "udp"]), default="", help="The port's protocol; both if left out."
)
@switch("--json", "as_json", help="Show it in JSON.")
@pass_app
def command(app: App, /, address: str, proto: str, as_json: bool) -> None:
    """Show the machine and the user behind a tailnet address."""
    found = app.client.whois(address, proto)
    click.echo(pretty(found) if as_json else render_whois(found), nl=as_json)
