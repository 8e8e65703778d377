"""`buri up`: join a tailnet, or go online again."""

from __future__ import annotations

from typing import Any

import click

from buri.cli.context import App, pass_app
from buri.cli.flags import DURATION, GoCommand, switch
from buri.cli.joining import Manner, read_auth_key, start_and_wait, sudo_user, wait_until_running
from buri.cli.prefflags import given_flags, pref_options
from buri.cli.upplan import Edit, GoOnline, Start, plan_up

EXAMPLE = """\
sudo buri up --login-server=https://buri.example.com
sudo buri up --login-server=https://buri.example.com --auth-key=file:/etc/buri/key
buri up"""


@click.command(cls=GoCommand, example=EXAMPLE)
@click.option("--auth-key", default="", metavar="KEY", help='A pre-auth key, or "file:" and the path of one.')
@pref_options()
@click.option("--timeout", type=DURATION, default=0, help="How long to wait for Running; 0s waits for ever.")
@switch("--qr", help="Show a QR code of the login page.")
@switch("--reset", help="Set what is not mentioned back to its default.")
@switch("--force-reauth", help="Log in anew, even while logged in.")
@switch("--json", "as_json", help="Tell progress in JSON.")
@pass_app
def command(
    app: App, /, auth_key: str, timeout: float, qr: bool, reset: bool, force_reauth: bool, as_json: bool, **prefs: Any
) -> None:
    """Join a tailnet, or go online again.

    Without flags, a node that was logged in goes online as it was. With flags, they are all there is: a preference
    set earlier must be repeated (or --reset given), so that nothing is lost by being forgotten. To change one
    preference, use "buri set".
    """
    given = given_flags(prefs)
    key = read_auth_key(auth_key)
    status = app.client.status()
    current = app.client.prefs()
    plan = plan_up(
        given,
        current,
        status.backend_state,
        reset=reset,
        force=force_reauth,
        auth_key=bool(key),
        sudo_user=sudo_user(),
    )
    manner = Manner(auth_key=key, force=force_reauth, timeout_s=timeout, qr=qr, json=as_json)
    match plan:
        case Edit(edit=edit):
            app.client.edit_prefs(edit)
        case GoOnline(edit=edit) if status.backend_state == "Running":
            app.client.edit_prefs(edit)
        case GoOnline(edit=edit):
            wait_until_running(app, status, current, manner, lambda: app.client.edit_prefs(edit))
        case Start(prefs=wanted):
            start_and_wait(app, status, wanted, manner)
