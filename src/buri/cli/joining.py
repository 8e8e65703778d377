"""Logging in and waiting until the node runs: what `up` and `login` have in common (wire reference 1g, trap 11)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import click
import msgspec

from buri.cli.context import App
from buri.cli.localclient import DaemonError, Watch
from buri.cli.render.asjson import pretty
from buri.core.errors import ConfigError, StateError
from buri.core.plaintext import plain
from buri.wire.localapi import BackendState, Options, Prefs, Status

KEY_FILE_PREFIX = "file:"


class Progress(msgspec.Struct, omit_defaults=True):
    """What `--json` prints, one object at each step."""

    auth_url: str = msgspec.field(name="AuthURL", default="")
    qr: str = msgspec.field(name="QR", default="")
    backend_state: str = msgspec.field(name="BackendState", default="")
    error: str = msgspec.field(name="Error", default="")


class Manner(msgspec.Struct, frozen=True):
    """How to log in and what to tell meanwhile; `timeout_s` 0 waits for ever."""

    auth_key: str = ""
    force: bool = False
    timeout_s: float = 0.0
    qr: bool = False
    json: bool = False


def read_auth_key(text: str) -> str:
    """The key itself, or the first line of the file that `file:PATH` names."""
    if not text.startswith(KEY_FILE_PREFIX):
        return text.strip()
    path = Path(text.removeprefix(KEY_FILE_PREFIX))
    try:
        key = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise ConfigError(f"The auth key's file {path} cannot be read: {reason}.") from error
    if not key:
        raise ConfigError(f"The auth key's file {path} is empty.")
    return key


def sudo_user() -> str:
    """Who called sudo, "" when nobody did."""
    name = os.environ.get("SUDO_USER", "")
    return name if os.geteuid() == 0 and name != "root" else ""


def start_and_wait(app: App, status: Status, prefs: Prefs, manner: Manner) -> None:
    """State `prefs`, log in where that is needed, and wait until the node runs."""

    def begin() -> None:
        app.client.check_prefs(prefs)
        app.client.start(Options(update_prefs=prefs, auth_key=manner.auth_key))
        if manner.force or not status.have_node_key or status.backend_state == BackendState.NEEDS_LOGIN.label:
            app.client.login_interactive()

    wait_until_running(app, status, prefs, manner, begin)


def wait_until_running(app: App, status: Status, prefs: Prefs, manner: Manner, begin: Callable[[], object]) -> None:
    """Watch the bus, `begin`, and tell what a person has to do until the node runs; raises what keeps it from it."""
    deadline = time.monotonic() + manner.timeout_s if manner.timeout_s else None
    with app.client.watch() as watch:
        begin()
        try:
            _follow(watch, status, prefs, manner, deadline)
        except TimeoutError as error:
            known = app.client.status(peers=False)
            raise StateError(
                f"timeout waiting for Buri to enter a Running state; it is {known.backend_state}.",
                remedy=" ".join(known.health or []) or 'See more with "buri status".',
            ) from error
    for message in app.client.status(peers=False).health or []:
        click.echo(f"# Health check: {plain(message)}", err=True)


def _follow(watch: Watch, status: Status, prefs: Prefs, manner: Manner, deadline: float | None) -> None:
    said = ""
    running = False
    waits_for_key = manner.force and status.have_node_key
    while True:
        notice = watch.next(deadline)
        if notice.err_message is not None:
            if manner.json:
                click.echo(pretty(Progress(error=notice.err_message)))
            raise DaemonError(notice.err_message)
        if notice.state is BackendState.NEEDS_MACHINE_AUTH:
            said = _say(said, prefs.control_url, _approval(prefs, manner))
        if notice.state is not None:
            running = notice.state is BackendState.RUNNING
        if notice.self_change is not None and notice.self_change.key != status.self_node.public_key:
            waits_for_key = False
        if running and not waits_for_key:
            if manner.json:
                click.echo(pretty(Progress(backend_state=BackendState.RUNNING.label)))
            elif said:
                click.echo("Success.", err=True)
            return
        url = notice.browse_to_url
        if url and not manner.auth_key and not (manner.force and url == status.auth_url):
            said = _say(said, url, _invitation(plain(url), status, manner))


def _say(said: str, what: str, words: str) -> str:
    if what != said:
        click.echo(words, err=not words.startswith("{"))
    return what


def _approval(prefs: Prefs, manner: Manner) -> str:
    if manner.json:
        return pretty(Progress(backend_state=BackendState.NEEDS_MACHINE_AUTH.label))
    return f"\nTo approve your machine, visit (as admin):\n\n\t{prefs.control_url}\n"


def _invitation(url: str, status: Status, manner: Manner) -> str:
    if manner.json:
        return pretty(Progress(auth_url=url, qr=_qr_picture(url), backend_state=status.backend_state))
    return f"\nTo authenticate, visit:\n\n\t{url}\n" + (f"\n{_qr_text(url)}" if manner.qr else "")


def _qr_text(url: str) -> str:
    import io

    import segno

    out = io.StringIO()
    segno.make(url, error="l").terminal(out=out, compact=True)
    return out.getvalue()


def _qr_picture(url: str) -> str:
    import segno

    picture: str = segno.make(url).png_data_uri(scale=4)
    return picture
