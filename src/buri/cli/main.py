"""`buri`: finds the verb, loads its module only then, and turns errors into a sentence and an exit code.

A verb is a module with a click object named `command`. This table names them all, so that `buri --help` loads none.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from buri import __version__
from buri.cli.context import App
from buri.core.errors import BuriError
from buri.core.plaintext import plain
from buri.wire.localapi import DEFAULT_SOCKET

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

VERBS = {
    "up": "Join a tailnet, or go online again",
    "down": "Go offline, staying logged in",
    "login": "Log in to a control server",
    "logout": "Leave the tailnet and forget its keys",
    "status": "Show this node, its peers, and how each is reached",
    "ping": "Ping a peer and show the path it took",
    "ip": "Show tailnet addresses",
    "netcheck": "Measure this network: NAT, addresses, relays",
    "whois": "Show the machine and user behind an address",
    "set": "Change single preferences",
    "get": "Show preferences",
    "wait": "Wait until the tailnet can be used",
    "version": "Show Buri's version",
    "debug": "Look inside, for when something is wrong",
    "completion": "Print a shell's completion script",
    "daemon": "Run the node's daemon (the same as burid)",
    "server": "Run a control server",
    "admin": "Administer a control server",
    "policy": "Check a policy file",
    "relay": "Run a relay",
}


class LazyGroup(click.Group):
    """A group that loads a verb's module when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        found = importlib.import_module(f"buri.cli.{cmd_name}").command
        assert isinstance(found, click.Command)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            import difflib  # for slips alone

            near = difflib.get_close_matches(args[0], VERBS, n=1)
            ctx.fail(f"There is no {args[0]!r}." + (f" Did you mean {near[0]!r}?" if near else ""))
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem  # not needed to run a verb

        verbs = [CompletionItem(name, help=text) for name, text in VERBS.items() if name.startswith(incomplete)]
        return verbs or super().shell_complete(ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="\b\nExample:\n  sudo buri up --login-server=https://buri.example.com\n  buri status\n  buri ping tokyo",
)
@click.option(
    "--socket",
    type=click.Path(path_type=Path),
    default=DEFAULT_SOCKET,
    show_default=True,
    envvar="BURI_SOCKET",
    show_envvar=True,
    help="The socket of burid.",
)
@click.version_option(__version__, message="%(version)s")
@click.pass_context
def cli(ctx: click.Context, socket: Path) -> None:
    """Buri, a mesh VPN you can run whole: node, control server and relay."""
    ctx.obj = App(socket)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (core.errors has the table)."""
    try:
        code = cli.main(None if arguments is None else list(arguments), prog_name="buri", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BuriError as error:
        click.echo(f"buri: {plain(str(error), keep_lines=True)}", err=True)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return 130
    except BrokenPipeError:
        # The reader (`head`, a pager) has seen enough; Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


if __name__ == "__main__":
    sys.exit(main())
