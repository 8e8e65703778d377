"""`buri wait`: block until the tailnet can be used."""

from __future__ import annotations

import socket
import time

import click

from buri.cli.context import App, pass_app
from buri.cli.flags import DURATION, GoCommand
from buri.core.errors import StateError, UnreachableError
from buri.wire.localapi import BackendState, NotifyMask

EXAMPLE = """\
buri wait --timeout=1m && exec my-service"""
RETRY_S = 0.25


@click.command(cls=GoCommand, example=EXAMPLE)
@click.option("--timeout", type=DURATION, default=0, help="How long to wait; 0s waits for ever.")
@pass_app
def command(app: App, /, timeout: float) -> None:
    """Wait until burid is there, the node runs, and its addresses can be bound to."""
    deadline = time.monotonic() + timeout if timeout else None
    try:
        _until_running(app, deadline)
        addresses = app.client.status(peers=False).tailscale_ips or []
        while not all(_can_bind(address) for address in addresses):
            _pause(deadline)
    except TimeoutError as error:
        raise StateError(
            f"The tailnet could not be used within {timeout:g} s.", remedy='See what is wrong with "buri status".'
        ) from error


def _until_running(app: App, deadline: float | None) -> None:
    while True:
        try:
            with app.client.watch(NotifyMask.INITIAL_STATE) as watch:
                while watch.next(deadline).state is not BackendState.RUNNING:
                    continue
                return
        except UnreachableError:
            _pause(deadline)  # not started yet, or starting anew


def _pause(deadline: float | None) -> None:
    if deadline is not None and time.monotonic() >= deadline:
        raise TimeoutError
    time.sleep(RETRY_S)


def _can_bind(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((address, 0))
        except OSError:
            return False
    return True
