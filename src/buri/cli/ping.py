"""`buri ping`: does a peer answer, and by which path."""

from __future__ import annotations

import time

import click

from buri.cli.context import App, fail, pass_app
from buri.cli.finding import find_address
from buri.cli.flags import DURATION, GoCommand, switch
from buri.cli.localclient import DaemonError
from buri.cli.render.ping import render_pong
from buri.core.plaintext import plain

EXAMPLE = """\
buri ping tokyo
buri ping -c 3 --until-direct=false 100.64.0.2"""
BETWEEN_S = 1.0


@click.command(cls=GoCommand, example=EXAMPLE)
@click.argument("peer", metavar="HOSTNAME-OR-IP")
@click.option("-c", "count", type=click.IntRange(min=0), default=10, help="How many pings at most; 0 for no end.")
@switch("--until-direct", default=True, help="Stop once a direct path is found (on by default).")
@click.option("--timeout", type=DURATION, default=5.0, help="How long to wait for each answer (5s).")
@click.option("--size", type=click.IntRange(min=0), default=0, help="Bytes of the ping message, 0 for the least.")
@switch("--icmp", help="Ping through the tunnel, by ICMP: the hosts answer, not the daemons.")
@switch("--tsmp", help="Ping through the tunnel, by TSMP: the daemons answer, whatever the packet filter says.")
@switch("--verbose", help="Say which address a name stands for.")
@pass_app
def command(
    app: App,
    /,
    peer: str,
    count: int,
    until_direct: bool,
    timeout: float,
    size: int,
    icmp: bool,
    tsmp: bool,
    verbose: bool,
) -> None:
    """Ping a peer between the two daemons, and show the path each answer took.

    The first answers often come by a relay while a direct path is being found. Ends with exit code 1 when nobody
    answered, or when no direct path was found in time.
    """
    if icmp and tsmp:
        raise click.UsageError("--icmp and --tsmp are two kinds of ping: give one.")
    kind = "ICMP" if icmp else "TSMP" if tsmp else "disco"
    if size and kind != "disco":
        raise click.UsageError("--size is for pings between the daemons; leave --icmp and --tsmp out.")
    address, this = find_address(app.running_status(), peer)
    if this:
        click.echo(f"{address} is local Tailscale IP")
        return
    if verbose and address != peer:
        click.echo(f'lookup "{peer}" => "{address}"', err=True)
    answered = False
    tried = 0
    while True:
        tried += 1
        try:
            result = app.client.ping(address, kind=kind, size_bytes=size, timeout_s=timeout)
        except TimeoutError:
            result = None
        if result is None or result.lost:
            why = f": {result.err}" if result is not None and result.err else ""
            click.echo(f'ping "{address}" timed out{why}')
        else:
            if result.is_local_ip:
                click.echo(plain(result.err))
                return
            if result.err:
                raise DaemonError(result.err)
            answered = True
            click.echo(render_pong(result, kind))
            if kind != "disco" or (result.endpoint and until_direct):
                return
            if tried != count:
                time.sleep(BETWEEN_S)
        if tried == count:
            break
    if not answered:
        fail("no reply")
    if until_direct and kind == "disco":
        fail("direct connection not established")
