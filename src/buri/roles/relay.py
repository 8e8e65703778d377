"""`buri relay`: a relay and STUN server on its own, run until a signal. Decides nothing itself."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping

import msgspec

from buri.core.addresses import AddrPort
from buri.core.errors import BuriError, ConfigError, SystemFault
from buri.engine.frontdoor import NativeFrontDoor
from buri.engine.frontport import Certificate, FrontConfig
from buri.relay.config import RelayConfig, RelayFlags, resolve
from buri.relay.identity import load_or_make_certificate, load_or_make_key, pin
from buri.wire.tailcfg.derpmap import DERPMap, DERPNode, DERPRegion

_REGION = 900


def main(flags: Mapping[str, str | None]) -> int:
    """Run the relay; `flags` are RelayFlags' members as the command line gave them. Returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        asyncio.run(_serve(resolve(msgspec.convert(flags, RelayFlags), os.environ)))
    except BuriError as error:
        print(f"buri relay: {error}", file=sys.stderr)
        return error.exit_code
    return 0


async def _serve(config: RelayConfig) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    door = _open(config)
    try:
        await stop.wait()
    finally:
        door.close()


def _open(config: RelayConfig) -> NativeFrontDoor:
    try:
        config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SystemFault(f"The state directory {config.state_dir} cannot be made: {error.strerror}.") from error
    if config.tls_cert is not None and config.tls_key is not None:
        try:
            certificate, name = Certificate(config.tls_cert.read_bytes(), config.tls_key.read_bytes()), ""
        except OSError as error:
            raise ConfigError(f"The certificate cannot be read: {error.filename}: {error.strerror}.") from error
    else:
        chain, key = load_or_make_certificate(config.state_dir, [str(config.listen.address)])
        certificate, name = Certificate(chain, key), pin(chain)
    door = NativeFrontDoor(
        FrontConfig(
            listen=(config.listen,),
            stun=(config.stun, AddrPort(config.stun.address, config.stun.port + 1)),
            certificate=certificate,
            relay_key=load_or_make_key(config.state_dir).raw,
        )
    )
    for address in door.listening():
        print(f"Listening on {address} (relay)")
    for address in door.stun_listening():
        print(f"Listening on {address} (STUN, UDP)")
    print("This relay admits everyone who can reach it: it does not know whose nodes are whose.")
    print("Nodes get it by `buri server --derp-map FILE` with (put this host's name or public address for HOST):")
    print(_derp_map(config, door, name), flush=True)
    return door


def _derp_map(config: RelayConfig, door: NativeFrontDoor, certificate: str) -> str:
    first = DERPNode(
        name=f"{_REGION}a",
        region_id=_REGION,
        host_name="HOST",
        cert_name=certificate,
        derp_port=door.listening()[0].port,
        stun_port=config.stun.port,
    )
    second = msgspec.structs.replace(first, name=f"{_REGION}b", stun_only=True, stun_port=config.stun.port + 1)
    region = DERPRegion(region_id=_REGION, region_code="relay", region_name="My relay", nodes=[first, second])
    return msgspec.json.encode(DERPMap(regions={_REGION: region})).decode()
