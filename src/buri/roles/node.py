"""A node put together: state store, engine, router and LocalAPI, run until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from buri.core.errors import SystemFault
from buri.core.keys import NodePrivate
from buri.engine import port
from buri.netio.echoes import TSMPResponder
from buri.netio.netlink import Netlink
from buri.node.agent import Agent
from buri.node.backend import AgentBackend
from buri.node.localapi.server import LocalAPIServer
from buri.node.router.linux import MARK, LinuxRouter, in_use, remove_rules
from buri.node.statestore import StateStore

if TYPE_CHECKING:
    from buri.roles.daemon import Options

log = logging.getLogger("burid")

MTU = 1280


def run_node(options: Options, listener: socket.socket) -> None:
    """Run a node whose LocalAPI is asked on `listener`, until SIGTERM or SIGINT; raises what keeps it from running."""
    asyncio.run(_run(options, listener))


async def _run(options: Options, listener: socket.socket) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    store = StateStore(options.state)
    with Netlink() as netlink:
        if not in_use(netlink):
            remove_rules(netlink)
    engine = start_engine(options, store)
    agent = Agent(
        store, engine, LinuxRouter(options.interface), interface=options.interface, fixed_port=options.port != 0
    )
    api = LocalAPIServer(AgentBackend(agent, stop.set), listener)
    responder = _answer_tsmp(options.interface)
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
        if responder is not None:
            responder.close()
        await agent.close()
    if agent.failed.done():
        reason = agent.failed.result().rstrip(".")
        raise SystemFault(f"The packet engine stopped: {reason}.", remedy="Restart burid.")


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


def _answer_tsmp(interface: str) -> TSMPResponder | None:
    try:
        return TSMPResponder.open(interface)
    except SystemFault as error:
        log.warning("TSMP pings of peers stay unanswered: %s", error)
        return None
