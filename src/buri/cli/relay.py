"""`buri relay`: flags only; the role itself is loaded by name."""

from __future__ import annotations

import importlib
import sys

import click

EPILOG = """\b
Example:
  buri relay --listen 0.0.0.0:443 --stun 0.0.0.0:3478

Each option is also a variable BURI_RELAY_… (BURI_RELAY_LISTEN); the flag wins."""


@click.command("relay", epilog=EPILOG, short_help="Run a relay on its own.")
@click.option("--state-dir", metavar="DIR", help="Keys are kept here [/var/lib/buri-relay].")
@click.option("--listen", metavar="HOST:PORT", help="The relay listens here [0.0.0.0:443].")
@click.option("--stun", metavar="HOST:PORT", help="STUN answers here and on the next port [0.0.0.0:3478].")
@click.option("--tls-cert", metavar="FILE", help="Certificate chain, PEM [its own, pinned by nodes].")
@click.option("--tls-key", metavar="FILE", help="Its key, PEM.")
def command(**flags: str | None) -> None:
    """Run a relay (DERP) and STUN server on its own. It admits everyone who can reach it."""
    sys.exit(importlib.import_module("buri.roles.relay").main(flags))
