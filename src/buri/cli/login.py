"""`buri login`: log in, keeping every preference that no flag changes."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from buri.cli.context import App, pass_app
from buri.cli.flags import DURATION, GoCommand, switch
from buri.cli.joining import Manner, read_auth_key, start_and_wait, sudo_user
from buri.cli.prefflags import changes, given_flags, pref_options
from buri.core.errors import ConfigError

EXAMPLE = "sudo buri login --login-server=https://buri.example.com"


@click.command(cls=GoCommand, example=EXAMPLE)
@click.option("--auth-key", default="", metavar="KEY", help='A pre-auth key, or "file:" and the path of one.')
@pref_options()
@click.option("--timeout", type=DURATION, default=0, help="How long to wait for Running; 0s waits for ever.")
@switch("--qr", help="Show a QR code of the login page.")
@pass_app
def command(app: App, /, auth_key: str, timeout: float, qr: bool, **prefs: Any) -> None:
    """Log in to a control server; a node that is logged in logs in anew."""
    key = read_auth_key(auth_key)
    made = changes(given_flags(prefs))
    status = app.client.status(peers=False)
    current = app.client.prefs()
    if not current.control_url and not current.operator_user:
        made.setdefault("operator_user", sudo_user())
    if not (made.get("control_url") or current.control_url):
        raise ConfigError("No control server is known yet.", remedy="Name it: buri login --login-server=URL")
    wanted = msgspec.structs.replace(current, **made, want_running=True, logged_out=False, config=None)
    start_and_wait(app, status, wanted, Manner(auth_key=key, force=True, timeout_s=timeout, qr=qr))
