"""`buri debug`: look inside, for when something is wrong. What it prints may change between versions."""

from __future__ import annotations

import sys

import click

from buri.cli.context import App, pass_app
from buri.cli.flags import GoCommand, switch
from buri.cli.render.asjson import pretty
from buri.wire.localapi import NotifyMask


@click.group(epilog="\b\nExample:\n  buri debug watch-ipn --netmap=false\n  sudo buri debug rebind")
def command() -> None:
    """Look inside, for when something is wrong."""


@command.command("derp-map", cls=GoCommand, example="buri debug derp-map")
@pass_app
def derp_map(app: App, /) -> None:
    """Show the map of relays."""
    click.echo(pretty(app.client.call("GET", "derpmap")))


@command.command("prefs", cls=GoCommand, example="buri debug prefs")
@pass_app
def prefs(app: App, /) -> None:
    """Show the preferences as the daemon keeps them."""
    click.echo(pretty(app.client.call("GET", "prefs")))


@command.command("netmap", cls=GoCommand, example="buri debug netmap | jq .Peers")
@pass_app
def netmap(app: App, /) -> None:
    """Show what the control server told of the tailnet."""
    click.echo(pretty(app.client.call("GET", "buri/netmap")))


@command.command("metrics", cls=GoCommand, example="buri debug metrics")
@pass_app
def metrics(app: App, /) -> None:
    """Show the daemon's counters."""
    click.echo(app.client.call("GET", "usermetrics"), nl=False)


@command.command("watch-ipn", cls=GoCommand, example="buri debug watch-ipn --count=1")
@switch("--netmap", default=True, help="Include netmaps (on by default).")
@switch("--initial", default=True, help="Begin with the present state (on by default).")
@click.option("--count", type=click.IntRange(min=0), default=0, help="End after so many messages; 0 for no end.")
@pass_app
def watch_ipn(app: App, /, netmap: bool, initial: bool, count: int) -> None:
    """Follow what the daemon tells its watchers."""
    mask = NotifyMask.NO_PRIVATE_KEYS
    if initial:
        mask |= NotifyMask.INITIAL_STATE | NotifyMask.INITIAL_PREFS | NotifyMask.INITIAL_HEALTH
        mask |= NotifyMask.INITIAL_NETMAP if netmap else NotifyMask(0)
    if not netmap:
        mask |= NotifyMask.NO_NETMAP
    with app.client.watch(mask) as watch:
        for number, line in enumerate(watch.raw_lines(), start=1):
            click.echo(pretty(line))
            sys.stdout.flush()
            if number == count:
                return


@command.command("localapi", cls=GoCommand, example="buri debug localapi GET status")
@click.argument("method", type=click.Choice(["GET", "POST", "PATCH", "PUT", "DELETE"], case_sensitive=False))
@click.argument("path")
@click.argument("body", default="")
@pass_app
def localapi(app: App, /, method: str, path: str, body: str) -> None:
    """Call LocalAPI by hand: METHOD, PATH under /localapi/v0/, and a BODY ("-": from stdin)."""
    data = sys.stdin.buffer.read() if body == "-" else body.encode()
    click.echo(app.client.call(method.upper(), path.removeprefix("/localapi/v0/"), data), nl=False)


def _action(name: str, text: str) -> None:
    @command.command(name, cls=GoCommand, example=f"sudo buri debug {name}", help=text)
    @pass_app
    def run(app: App, /) -> None:
        click.echo(app.client.call("POST", f"debug?action={name}"), nl=False)


_action("restun", "Ask the relays anew which addresses this node is seen as.")
_action("rebind", "Open the UDP sockets anew.")
_action("break-derp-conns", "Cut the connections to relays, to see them come back.")
_action("pick-new-derp", "Move to another home relay for a while.")
