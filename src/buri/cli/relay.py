"""`buri relay`: flags only; the role itself is loaded by name."""

from __future__ import annotations

import importlib

import click

EPILOG = """\b
Examples:
  buri relay --hostname 203.0.113.7
  buri relay --hostname relay.example.org --tls-cert fullchain.pem --tls-key key.pem
  buri relay --listen 127.0.0.1:8443 --stun none --state-dir ./relay

\b
Each option is also a variable BURI_RELAY_… (BURI_RELAY_LISTEN, BURI_RELAY_TLS_CERT); the flag wins.
After a renewal, SIGHUP makes it read --tls-cert and --tls-key again; connections stay."""


@click.command("relay", epilog=EPILOG, short_help="Run a relay.")
@click.option("--state-dir", metavar="DIR", help="Its key, certificate and DERP map [/var/lib/buri-relay].")
@click.option("--listen", metavar="HOST:PORT", help="It listens here, TLS and plain alike [0.0.0.0:443].")
@click.option("--hostname", metavar="NAME", help="Name or address by which nodes reach it [this host's address].")
@click.option("--stun", metavar="HOST:PORT", help="STUN answers here and on the next port; or none [port 3478].")
@click.option("--tls-cert", metavar="FILE", help="Certificate chain, PEM [its own, which the DERP map pins].")
@click.option("--tls-key", metavar="FILE", help="Its key, PEM.")
@click.option("--region", metavar="N", help="Its region in the DERP map, 900 to 998 [900].")
@click.option("--metrics", metavar="HOST:PORT", help="Serve /metrics and /debug/vars here; keep it private [nowhere].")
@click.pass_context
def command(ctx: click.Context, /, **flags: str | None) -> None:
    """Run a relay: nodes that cannot reach each other directly meet here, and learn here how they look from outside.

    It carries sealed packets that it cannot read. It says what to give `buri server --derp-map`.
    """
    ctx.exit(importlib.import_module("buri.roles.relay").main(flags))
