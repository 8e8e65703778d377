"""`buri server`: flags only; the role itself is loaded by name."""

from __future__ import annotations

import importlib
import sys

import click

EPILOG = """\b
Examples:
  buri server --listen 0.0.0.0:8080 --url http://192.168.1.10:8080
  buri server --listen 0.0.0.0:443 --url https://vpn.example.org --tls-cert fullchain.pem --tls-key key.pem
  buri server … --oidc google=CLIENT_ID,/etc/buri/google.secret --allow example.org

People sign in with a password; the first owner by a one-time link that the start prints. With --oidc they sign in at that
provider, whose settings must allow the address URL/login/callback/NAME to come back to.

Each option is also a variable BURI_SERVER_… (BURI_SERVER_LISTEN, BURI_SERVER_NO_RELAY=1); the flag wins. Several values
of one variable stand one after the other, with spaces between."""


@click.command("server", epilog=EPILOG, short_help="Run the control server (and its relay).")
@click.option("--state-dir", metavar="DIR", help="Keys and database [/var/lib/buri-server].")
@click.option("--listen", metavar="HOST:PORT", help="Control and relay listen here [127.0.0.1:8080].")
@click.option("--url", metavar="URL", help="How nodes reach this server.")
@click.option("--stun", metavar="HOST:PORT", help="STUN answers here and on the next port [the listener's host:3478].")
@click.option("--tls-cert", metavar="FILE", help="Certificate chain, PEM.")
@click.option("--tls-key", metavar="FILE", help="Its key, PEM.")
@click.option("--no-relay", is_flag=True, default=None, help="Control alone; relays come from --derp-map.")
@click.option("--derp-map", metavar="FILE", help="Regions to add, as a tailcfg.DERPMap in JSON.")
@click.option("--base-domain", metavar="NAME", help="Names of nodes end in this [buri.internal].")
@click.option("--policy", metavar="FILE", help="Who may reach what; read again when it changes.")
@click.option(
    "--oidc",
    metavar="NAME=ISSUER,ID,SECRETFILE",
    multiple=True,
    help="Let people sign in there; google=ID,SECRETFILE and microsoft=TENANT,ID,SECRETFILE are known. Repeatable.",
)
@click.option(
    "--allow",
    metavar="[NAME:]WHO",
    multiple=True,
    help="Whom a provider may bring uninvited: a domain, an e-mail address, a tenant's id, or *. Repeatable.",
)
def command(**flags: str | bool | tuple[str, ...] | None) -> None:
    """Run the control server: it knows the nodes, gives them addresses and names, and tells each of the others.

    Without --no-relay it is their relay and STUN server as well, on the same port.
    """
    sys.exit(importlib.import_module("buri.roles.server").main(flags))
