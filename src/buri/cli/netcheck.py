"""`buri netcheck`: what this network is like, measured by the daemon from its own socket."""

from __future__ import annotations

import click
import msgspec

from buri.cli.context import App, pass_app
from buri.cli.flags import GoCommand, switch
from buri.cli.render.asjson import pretty
from buri.cli.render.netcheck import render_netcheck
from buri.wire.tailcfg.derpmap import DERPMap

EXAMPLE = """\
buri netcheck
buri netcheck --format=json | jq .GlobalV4"""


@click.command(cls=GoCommand, example=EXAMPLE)
@click.option("--format", "form", type=click.Choice(["", "json", "json-line"]), default="", help="json or json-line.")
@switch("--verbose", help="Show the relays' region numbers.")
@pass_app
def command(app: App, /, form: str, verbose: bool) -> None:
    """Measure this network: UDP, the address it is seen as, the kind of NAT, and how near each relay is.

    The daemon measures, through the socket that carries its traffic, so the answer holds for that.
    """
    report = app.client.netcheck()
    if form == "json":
        click.echo(pretty(report))
    elif form == "json-line":
        click.echo(msgspec.json.encode(report))
    else:
        click.echo(render_netcheck(report, app.client.derp_map() or DERPMap(), verbose=verbose), nl=False)
