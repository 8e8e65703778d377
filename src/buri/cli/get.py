"""`buri get`: show preferences, by the names of their flags."""

from __future__ import annotations

import click

from buri.cli.context import App, pass_app
from buri.cli.flags import GoCommand, switch
from buri.cli.prefflags import FLAGS
from buri.cli.render.asjson import pretty
from buri.cli.render.columns import columns

EXAMPLE = """\
buri get
buri get hostname"""


@click.command(cls=GoCommand, example=EXAMPLE)
@click.argument("name", default="all", type=click.Choice(["all", *FLAGS]), metavar="[NAME]")
@switch("--json", "as_json", help="Show them in JSON.")
@pass_app
def command(app: App, /, name: str, as_json: bool) -> None:
    """Show all preferences, or one, by the names of the flags that set them."""
    prefs = app.client.prefs()
    shown = {flag.name: flag.text(prefs) for flag in FLAGS.values() if name in ("all", flag.name)}
    if as_json:
        click.echo(pretty(shown if name == "all" else shown[name]))
    elif name == "all":
        click.echo("\n".join(columns([("NAME", "VALUE"), *((key, _text(value)) for key, value in shown.items())])))
    else:
        click.echo(_text(shown[name]))


def _text(value: bool | str) -> str:
    return value if isinstance(value, str) else str(value).lower()
