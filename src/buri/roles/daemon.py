"""`burid`: composes a node out of state store, engine, router and LocalAPI, and runs it until it is told to stop."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from buri import __version__
from buri.core.errors import BuriError, ConfigError, InUseError, NotPermittedError, SystemFault
from buri.core.keys import NodePrivate
from buri.engine import port
from buri.netio.netlink import Netlink
from buri.node.agent import Agent
from buri.node.backend import AgentBackend
from buri.node.localapi.server import LocalAPIServer
from buri.node.router.linux import MARK, LinuxRouter, in_use, remove_rules
from buri.node.statestore import MEMORY, STATE_FILE, StateStore

log = logging.getLogger("burid")

DEFAULT_STATE_DIRECTORY = "/var/lib/buri"
DEFAULT_SOCKET = "/run/buri/burid.sock"
DEFAULT_PORT = 41641
DEFAULT_INTERFACE = "buri0"
USERSPACE = "userspace-networking"
MTU = 1280


class Options(msgspec.Struct, frozen=True):
    """What the command line says; `state` None: kept in memory."""

    state: Path | None
    socket: Path
    interface: str
    port: int
    verbose: int
    cleanup: bool


def parse(arguments: Sequence[str]) -> Options:
    """Read the command line; raises ConfigError for values that cannot be used (argparse ends the program else)."""
    parser = argparse.ArgumentParser(prog="burid", description="Buri's node: joins a tailnet and carries its traffic.")
    parser.add_argument("--statedir", default="", help=f"where the node's state is kept ({DEFAULT_STATE_DIRECTORY})")
    parser.add_argument("--state", default="", help=f"the state file, or `mem:` (STATEDIR/{STATE_FILE})")
    parser.add_argument("--socket", default=DEFAULT_SOCKET, help="the Unix socket `buri` talks to (%(default)s)")
    parser.add_argument("--tun", default=DEFAULT_INTERFACE, help="the name of the tunnel's interface (%(default)s)")
    parser.add_argument("--port", default="", help=f"UDP port, 0 for any ($PORT, or {DEFAULT_PORT})")
    parser.add_argument("--verbose", "-v", nargs="?", type=int, const=1, default=0, help="1: say more")
    parser.add_argument("--cleanup", action="store_true", help="remove what a killed burid left in the system, and end")
    parser.add_argument("--version", action="version", version=f"burid {__version__}")
    given = parser.parse_args(arguments)
    if given.tun == USERSPACE:
        raise ConfigError(
            "burid has no userspace networking yet.", remedy="Run it with a TUN device (leave --tun out), as root."
        )
    if not given.tun or len(given.tun) > 15 or "/" in given.tun or given.tun.strip() != given.tun:
        raise ConfigError(f"--tun: {given.tun!r} is not a name for an interface.", remedy="Use at most 15 letters.")
    text = given.port or os.environ.get("PORT", "") or str(DEFAULT_PORT)
    if not text.isdecimal() or int(text) > 0xFFFF:
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
        asyncio.run(run(options))
        return 0
    except BuriError as error:
        print(f"burid: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def cleanup() -> int:
    """Remove what a killed burid left; raises InUseError while one is alive in this network."""
    with Netlink() as netlink:
        if in_use(netlink):
            raise InUseError("A burid is running here, and its routes are in use.", remedy="Stop it first.")
        removed = remove_rules(netlink)
    what = f"removed {removed} routing rule{'' if removed == 1 else 's'}" if removed else "nothing was left behind"
    print(f"burid: {what}.")
    return 0


async def run(options: Options) -> None:
    """Run a node until SIGTERM or SIGINT; raises what keeps it from running."""
    if os.uname().sysname != "Linux":
        raise SystemFault("burid runs on Linux alone so far.")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    listener = claim_socket(options.socket)
    try:
        store = StateStore(options.state)
        with Netlink() as netlink:
            if not in_use(netlink):
                remove_rules(netlink)
        engine = start_engine(options, store)
        agent = Agent(
            store, engine, LinuxRouter(options.interface), interface=options.interface, fixed_port=options.port != 0
        )
        api = LocalAPIServer(AgentBackend(agent, stop.set), listener)
        try:
            agent.start()
            api.start()
            notify("READY=1")
            log.info("Ready; `buri --socket=%s up` joins a tailnet.", options.socket)
            agent.failed.add_done_callback(lambda _: stop.set())
            await stop.wait()
            notify("STOPPING=1")
        finally:
            await api.close()
            await agent.close()
        if agent.failed.done():
            reason = agent.failed.result().rstrip(".")
            raise SystemFault(f"The packet engine stopped: {reason}.", remedy="Restart burid.")
    finally:
        listener.close()
        options.socket.unlink(missing_ok=True)


def start_engine(options: Options, store: StateStore) -> port.Engine:
    """The engine with its TUN device; raises NotPermittedError, InUseError or SystemFault with nothing left behind."""
    if not Path("/dev/net/tun").exists():
        raise SystemFault(
            "This system has no TUN device (/dev/net/tun).",
            remedy="Load it (`modprobe tun`), or give the container --device=/dev/net/tun.",
        )
    from buri.engine.native import NativeEngine

    key = store.node_key or NodePrivate.from_entropy(os.urandom(32))
    return NativeEngine(
        port.EngineConfig(private_key=key, tun_name=options.interface, mtu=MTU, udp_port=options.port, mark=MARK)
    )


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


def notify(state: str) -> None:
    """Tell systemd, when it started us (sd_notify)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
        except OSError as error:
            log.warning("systemd could not be told %s: %s", state, error)


if __name__ == "__main__":
    sys.exit(main())
