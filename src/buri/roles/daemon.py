"""`burid`: its command line and its socket, which is there before anything heavy is loaded: who asks at once waits in it."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from buri import __version__
from buri.core.errors import BuriError, ConfigError, InUseError, NotPermittedError, SystemFault
from buri.node.statefile import MEMORY, STATE_FILE

log = logging.getLogger("burid")

DEFAULT_STATE_DIRECTORY = "/var/lib/buri"
DEFAULT_SOCKET = "/run/buri/burid.sock"
DEFAULT_PORT = 41641
DEFAULT_INTERFACE = "buri0"
USERSPACE = "userspace-networking"
GARBAGE_THRESHOLDS = 50_000, 20, 20  # a large netmap is many objects that stay: the usual 700 look too often


class Options(NamedTuple):
    """What the command line says; `state` None: kept in memory."""

    state: Path | None
    socket: Path
    interface: str
    port: int
    verbose: int
    cleanup: bool


def command_line() -> argparse.ArgumentParser:
    """What `burid` may be given."""
    parser = argparse.ArgumentParser(prog="burid", description="Buri's node: joins a tailnet and carries its traffic.")
    parser.add_argument("--statedir", default="", help=f"where the node's state is kept ({DEFAULT_STATE_DIRECTORY})")
    parser.add_argument("--state", default="", help=f"the state file, or `mem:` (STATEDIR/{STATE_FILE})")
    parser.add_argument("--socket", default=DEFAULT_SOCKET, help="the Unix socket `buri` talks to (%(default)s)")
    parser.add_argument("--tun", default=DEFAULT_INTERFACE, help="the name of the tunnel's interface (%(default)s)")
    parser.add_argument("--port", default="", help=f"UDP port, 0 for any ($PORT, or {DEFAULT_PORT})")
    parser.add_argument("--verbose", "-v", nargs="?", type=int, const=1, default=0, help="1: say more")
    parser.add_argument("--cleanup", action="store_true", help="remove what a killed burid left in the system, and end")
    parser.add_argument("--version", action="version", version=f"burid {__version__}")
    return parser


def parse(arguments: Sequence[str]) -> Options:
    """Read the command line; raises ConfigError for values that cannot be used (argparse ends the program else)."""
    given = command_line().parse_args(arguments)
    if given.tun == USERSPACE:
        raise ConfigError(
            "burid has no userspace networking yet.", remedy="Run it with a TUN device (leave --tun out), as root."
        )
    if not given.tun or len(given.tun) > 15 or "/" in given.tun or given.tun.strip() != given.tun:
        raise ConfigError(f"--tun: {given.tun!r} is not a name for an interface.", remedy="Use at most 15 letters.")
    text = given.port or os.environ.get("PORT", "") or str(DEFAULT_PORT)
    if not text.isdecimal() or len(text) > 5 or int(text) > 0xFFFF:
        raise ConfigError(f"--port: {text!r} is not a port.", remedy="Give a number from 0 to 65535.")
    directory = Path(given.statedir or DEFAULT_STATE_DIRECTORY)
    state = None if given.state == MEMORY else Path(given.state or directory / STATE_FILE)
    return Options(state, Path(given.socket), given.tun, int(text), given.verbose, given.cleanup)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `burid`; returns the exit code (core.errors has the table)."""
    try:
        options = parse(sys.argv[1:] if arguments is None else arguments)
        logging.basicConfig(
            level=logging.DEBUG if options.verbose else logging.INFO,
            format="%(levelname).1s %(name)s: %(message)s",
            stream=sys.stderr,
        )
        logging.getLogger("asyncio").setLevel(logging.WARNING)
        logging.getLogger("hpack").setLevel(logging.WARNING)
        if options.cleanup:
            return cleanup()
        if os.uname().sysname != "Linux":
            raise SystemFault("burid runs on Linux alone so far.")
        listener = claim_socket(options.socket)
        try:
            gc.disable()  # what is loaded here stays: looking through it for garbage is a twentieth of the start
            from buri.roles.node import run_node

            gc.freeze()
            gc.set_threshold(*GARBAGE_THRESHOLDS)
            gc.enable()
            run_node(options, listener)
        finally:
            listener.close()
            options.socket.unlink(missing_ok=True)
        return 0
    except BuriError as error:
        print(f"burid: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def cleanup() -> int:
    """Remove what a killed burid left; raises InUseError while one is alive in this network."""
    from buri.dns.osconfig.resolvconf import PlainFile
    from buri.netio.netlink import Netlink
    from buri.node.router.linux import in_use, remove_rules

    with Netlink() as netlink:
        if in_use(netlink):
            raise InUseError("A burid is running here, and its routes are in use.", remedy="Stop it first.")
        removed = remove_rules(netlink)
    done = [f"removed {removed} routing rule{'' if removed == 1 else 's'}"] if removed else []
    done += ["gave /etc/resolv.conf back"] if PlainFile().revert_now() else []
    print(f"burid: {' and '.join(done) or 'nothing was left behind'}.")
    return 0


def claim_socket(path: Path) -> socket.socket:
    """The listening Unix socket; raises InUseError when another daemon answers there, and replaces a dead one's."""
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.settimeout(1)
        probe.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        path.unlink(missing_ok=True)
    except PermissionError as error:
        raise NotPermittedError(f"The socket {path} is another user's.", remedy="Run burid as root.") from error
    except (TimeoutError, BlockingIOError) as error:
        raise InUseError(f"A burid on {path} is there and does not answer.", remedy="Stop it first.") from error
    except OSError as error:
        raise SystemFault(
            f"The socket {path} cannot be used: {error.strerror or error}.", remedy="Give another --socket."
        ) from error
    else:
        raise InUseError(f"Another burid is running on {path}.", remedy="Stop it, or give another --socket.")
    finally:
        probe.close()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        listener.bind(str(path))
        os.chmod(path, 0o666)  # LocalAPI decides by the peer's credentials, as Tailscale's does
        listener.listen(128)
        listener.setblocking(False)
    except PermissionError as error:
        listener.close()
        raise NotPermittedError(f"The socket {path} may not be made.", remedy="Run burid as root.") from error
    except OSError as error:
        listener.close()
        raise SystemFault(f"The socket {path} cannot be made: {error.strerror}.") from error
    return listener


if __name__ == "__main__":
    sys.exit(main())
