"""What every verb is handed: the daemon's socket, and small helps of several verbs."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import click

from buri.cli.localclient import LocalClient
from buri.core.errors import BuriError, StateError
from buri.wire.localapi import Status


class App:
    """The program's state for one run."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.client = LocalClient(socket)

    def running_status(self, *, peers: bool = True) -> Status:
        """The status; when the node does not run, says so on stdout and ends with exit code 1."""
        status = self.client.status(peers=peers)
        description = why_not_running(status)
        if description:
            finish(description, 1)
        return status


pass_app = click.make_pass_decorator(App)


EXPIRED = "This node's key has expired."


def why_not_running(status: Status) -> str:
    """In words why a node does not run, "" when it does or is about to."""
    match status.backend_state:
        case "Running" | "Starting":
            return ""
        case "Stopped":
            return "Buri is stopped.\nStart it with: buri up"
        case "NeedsLogin" if status.auth_url:
            why = EXPIRED if status.self_node.expired else "Logged out."
            return f"{why}\nLog in at: {status.auth_url}"
        case "NeedsLogin" if status.self_node.expired:
            return f"{EXPIRED}\nLog in again with: buri up"
        case "NeedsLogin":
            return "Logged out.\nLog in with: buri up --login-server=URL"
        case "NeedsMachineAuth":
            return "Machine is not yet approved by tailnet admin."
        case state:
            return f"unexpected state: {state}"


def finish(text: str, code: int) -> NoReturn:
    """Say a last word on stdout and end with this exit code."""
    click.echo(text)
    raise click.exceptions.Exit(code)


def fail(message: str, remedy: str = "") -> NoReturn:
    """End with a sentence and exit code 1."""
    error: BuriError = StateError(message, remedy=remedy)
    raise error
