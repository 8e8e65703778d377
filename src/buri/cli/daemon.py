"""`buri daemon`: the node's daemon, for installations with one command; the same as `burid`."""

from __future__ import annotations

import importlib

import click

from buri.cli.flags import GoCommand


@click.command(
    cls=GoCommand,
    example="sudo buri daemon --statedir=/var/lib/buri",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def command(ctx: click.Context, arguments: tuple[str, ...]) -> None:
    """Run the node's daemon; `buri daemon --help` shows its flags."""
    main = importlib.import_module("buri.roles.daemon").main  # by name: the command line never imports a role
    ctx.exit(main(list(arguments)))
