"""`buri completion`: the script that teaches a shell Buri's verbs and flags."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from buri.cli.flags import GoCommand

EXAMPLE = """\
buri completion bash | sudo tee /etc/bash_completion.d/buri
buri completion fish > ~/.config/fish/completions/buri.fish"""


@click.command(cls=GoCommand, example=EXAMPLE)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script for a shell."""
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(command, {}, "buri", "_BURI_COMPLETE").source())
