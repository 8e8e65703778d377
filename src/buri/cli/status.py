"""`buri status`: this node, its peers, and how each is reached."""

from __future__ import annotations

import time

import click
import msgspec

from buri.cli.context import App, finish, pass_app, why_not_running
from buri.cli.flags import GoCommand, switch
from buri.cli.render.asjson import pretty
from buri.cli.render.status import render_health, render_status

EXAMPLE = """\
buri status
buri status --json | jq -r '.Peer[].HostName'"""


@click.command(cls=GoCommand, example=EXAMPLE)
@switch("--json", "as_json", help="Show all there is in JSON.")
@switch("--active", help="Only peers with traffic now.")
@switch("--self", "this", default=True, help="Show this node too (on by default).")
@switch("--peers", default=True, help="Show peers (on by default).")
@switch("--header", help="Show column headers.")
@pass_app
def command(app: App, /, as_json: bool, active: bool, this: bool, peers: bool, header: bool) -> None:
    """Show this node, its peers, and how each is reached.

    "direct ADDRESS" is a path of our own to that peer, "relay NAME" goes by that relay; in brackets why, if known.
    Ends with exit code 1 when the node does not run.
    """
    if as_json:
        body = app.client.call("GET", "status" if peers else "status?peers=false")
        if active:
            found = msgspec.json.decode(body)
            found["Peer"] = {key: peer for key, peer in (found.get("Peer") or {}).items() if peer.get("Active")}
            body = msgspec.json.encode(found)
        click.echo(pretty(body))
        return
    status = app.client.status(peers=peers)
    description = why_not_running(status)
    if description:
        if status.health and status.backend_state == "NoState":
            click.echo("\n".join([*render_health(status.health), ""]))
        finish(description, 1)
    click.echo(
        render_status(status, time.time(), this=this, peers=peers, active=active, header=header),
        nl=False,
    )
