"""`buri relay`: a relay of its own, put together and run until a signal. Decides nothing itself."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping

import msgspec

from buri.core.errors import BuriError
from buri.engine.frontdoor import NativeFrontDoor
from buri.engine.frontport import FrontConfig, FrontDoor
from buri.relay.config import RelayFlags, resolve
from buri.relay.identity import self_signed_pin
from buri.relay.metrics import MetricsServer
from buri.relay.station import RelayStation, read_certificate, write_map

_log = logging.getLogger("buri.relay")


def main(flags: Mapping[str, str | None]) -> int:
    """Run the relay; `flags` are RelayFlags' members as the command line gave them. Returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        config = resolve(msgspec.convert(flags, RelayFlags), os.environ)
        asyncio.run(serve(RelayStation.prepare(config), NativeFrontDoor))
    except BuriError as error:
        print(f"buri relay: {error}", file=sys.stderr)
        return error.exit_code
    return 0


async def serve(station: RelayStation, open_door: Callable[[FrontConfig], FrontDoor]) -> None:
    """Carry packets until SIGTERM or SIGINT; SIGHUP reads the certificate's files again."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        door = open_door(station.front_config())
        stack.callback(door.close)
        loop.add_signal_handler(signal.SIGHUP, _reload, station, door)
        door.admit_all()
        metrics = None
        if station.config.metrics is not None:
            metrics = await MetricsServer.open(station.config.metrics, door.stats)
            stack.push_async_callback(metrics.close)
        _greet(station, door, metrics)
        await stop.wait()
        _log.info("stopping")


def _reload(station: RelayStation, door: FrontDoor) -> None:
    files = station.config.tls_files
    if files is None:
        _log.info("SIGHUP: this relay's certificate is its own and never changes")
        return
    try:
        certificate = read_certificate(*files)
        door.set_certificate(certificate)
        _log.info("read the certificate %s again; new connections get it", files[0])
        if self_signed_pin(certificate.chain_pem) != self_signed_pin(station.certificate.chain_pem):
            path = write_map(station.config.state_dir, station.derp_map(door.listening(), certificate))
            _log.warning("clients pin a self-signed certificate: give the control server the new map %s", path)
    except BuriError as error:
        _log.error("the certificate stays as it was: %s", error)


def _greet(station: RelayStation, door: FrontDoor, metrics: MetricsServer | None) -> None:
    listening = door.listening()
    derp_map = station.derp_map(listening)
    path = write_map(station.config.state_dir, derp_map)
    print(f"Buri relay {station.key.public()} for {station.hostname}, state in {station.config.state_dir}")
    for address in listening:
        print(f"Listening on {address} (relay, TLS and plain)")
    for address in door.stun_listening():
        print(f"Listening on {address} (STUN, UDP)")
    if metrics is not None:
        print(f"Listening on {metrics.listening()} (metrics)")
    print("It carries packets for everyone who finds it: it keeps no list of nodes.")
    print(f"Its DERP map, also in {path}: give it to `buri server --derp-map`.")
    print(msgspec.json.format(msgspec.json.encode(derp_map), indent=2).decode(), flush=True)
