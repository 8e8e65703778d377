"""`buri ip`: tailnet addresses, this node's or a peer's."""

from __future__ import annotations

import click

from buri.cli.context import App, fail, pass_app
from buri.cli.finding import find_address, node_with
from buri.cli.flags import GoCommand

EXAMPLE = """\
buri ip -4
buri ip tokyo"""


@click.command(cls=GoCommand, example=EXAMPLE)
@click.argument("peer", required=False, metavar="[PEER]")
@click.option("-1", "one", is_flag=True, help="Only one address.")
@click.option("-4", "ipv4", is_flag=True, help="Only the IPv4 address.")
@click.option("-6", "ipv6", is_flag=True, help="Only the IPv6 address.")
@click.option("--assert", "expected", default="", metavar="IP", help="Fail unless this is an address of this node.")
@pass_app
def command(app: App, /, peer: str | None, one: bool, ipv4: bool, ipv6: bool, expected: str) -> None:
    """Show the tailnet addresses of this node, or of a peer (by name or address)."""
    if one + ipv4 + ipv6 > 1:
        raise click.UsageError("-1, -4 and -6 exclude each other.")
    status = app.client.status()
    addresses = status.tailscale_ips or []
    if expected:
        if expected not in addresses:
            fail(f"assertion failed: IP {expected!r} not found among {' '.join(addresses) or 'none'}")
        return
    if peer is not None:
        address, _ = find_address(status, peer)
        node = node_with(status, address)
        if node is None:
            fail(f"no peer found with IP {address}")
        addresses = node.tailscale_ips or []
    if not addresses:
        fail(f"no current Tailscale IPs; state: {status.backend_state}")
    family = ":" if ipv6 else "." if ipv4 else ""
    shown = [address for address in addresses if family in address]
    if not shown:
        fail(f"no Tailscale {'IPv6' if ipv6 else 'IPv4'} address")
    for address in shown[:1] if one else shown:
        click.echo(address)
