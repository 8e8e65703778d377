"""`buri set`: change single preferences."""

from __future__ import annotations

from typing import Any

import click

from buri.cli.context import App, pass_app
from buri.cli.flags import GoCommand
from buri.cli.prefflags import changes, given_flags, pref_options
from buri.wire.localapi import mask

EXAMPLE = """\
sudo buri set --operator=$USER
buri set --hostname=tokyo --accept-routes"""


@click.command(cls=GoCommand, example=EXAMPLE)
@pref_options(without=frozenset({"login-server", "advertise-tags"}))
@pass_app
def command(app: App, /, **prefs: Any) -> None:
    """Change the preferences that are mentioned; all others stay."""
    made = changes(given_flags(prefs))
    if not made:
        raise click.UsageError('Name what to change, as in "buri set --hostname=tokyo".')
    edit = mask(**made)
    app.client.check_prefs(edit.apply_to(app.client.prefs()))
    app.client.edit_prefs(edit)
