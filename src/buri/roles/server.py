"""`buri server`: control server and relay put together and run until a signal. Decides nothing itself."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import getpass
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path

import msgspec

from buri.control.api.adminsocket import AdminSocket
from buri.control.api.verbs import Verbs
from buri.control.clock import SystemClock
from buri.control.config import ServerConfig, ServerFlags, resolve
from buri.control.coordinator import Coordinator
from buri.control.derpmap import build_derp_map, read_derp_map
from buri.control.noisefront.asgi import ASGIHandler
from buri.control.noisefront.listener import NoiseFront
from buri.control.noisefront.machineroutes import MachineRoutes
from buri.control.noisefront.pages import Pages
from buri.control.policyfile import PolicyFile
from buri.control.settings import Settings
from buri.control.signin import SignIn
from buri.control.store.lock import StateLock
from buri.core.addresses import AddrPort, IPAddress
from buri.core.errors import BuriError, SystemFault
from buri.core.keys import MachinePrivate
from buri.engine.frontdoor import NativeFrontDoor
from buri.engine.frontport import Certificate, FrontConfig, FrontDoor
from buri.netio.secretfile import load_or_make_key, write_secret
from buri.relay.identity import load_or_make_certificate, load_relay_key, pin, self_signed_pin
from buri.relay.station import read_certificate
from buri.web.app import make_app
from buri.web.signinpages import WELCOME
from buri.wire.tailcfg.derpmap import DERPMap
from buri.wire.tailcfg.relayregion import OwnRelay

NOISE_KEY_FILE = "noise.key"
FIRST_KEY_FILE = "first-auth-key"
FIRST_KEY_LIFETIME_S = 3600.0
OWNER_LINK_FILE = "owner-link"
_NOISE_FORMAT = "buri-noise-key 1"
_log = logging.getLogger("buri.server")


def main(flags: Mapping[str, str | bool | tuple[str, ...] | None]) -> int:
    """Run the server; `flags` are ServerFlags' members as the command line gave them. Returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    gc.freeze()  # what is loaded stays, and so do a tailnet's nodes: the usual 700 look at them over and over
    gc.set_threshold(50_000, 20, 20)
    try:
        asyncio.run(_serve(resolve(msgspec.convert(flags, ServerFlags), os.environ)))
    except BuriError as error:
        print(f"buri server: {error}", file=sys.stderr)
        return error.exit_code
    return 0


async def _serve(config: ServerConfig) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        _prepare(config.state_dir)
        given = _given_certificate(config)
        if config.derp_map is not None:
            read_derp_map(config.derp_map)
        lock = StateLock(config.state_dir)  # before anything is written: another server may run on it
        stack.callback(lock.close)
        certificate, name = await loop.run_in_executor(None, _certificate, config, given)
        settings = Settings(url=config.url)
        if config.base_domain is not None:
            settings = Settings(url=config.url, base_domain=config.base_domain)
        coordinator = await Coordinator.open(config.state_dir, settings, _derp_map(config, name), lock=lock)
        stack.push_async_callback(coordinator.close)
        if config.policy is not None:
            stack.callback((await _follow_policy(config.policy, coordinator)).close)
        key = load_or_make_key(config.state_dir / NOISE_KEY_FILE, MachinePrivate, _NOISE_FORMAT)
        pages = Pages(key.public(), config.url, tls=config.tls)
        pages.extra = ASGIHandler(make_app(_sign_in(config, coordinator, key, stack))).handle
        front = NoiseFront(key, pages.handle, MachineRoutes(coordinator).handle)
        stack.push_async_callback(front.close)
        listening = await _open_doors(config, certificate, coordinator, front, stack)
        verbs = Verbs(coordinator.admin, coordinator.policies, coordinator.people, config.url)
        admin = await AdminSocket.open(config.state_dir, verbs)
        stack.push_async_callback(admin.close)
        await _greet(config, coordinator, listening)
        await stop.wait()
        _log.info("stopping")


def _sign_in(
    config: ServerConfig, coordinator: Coordinator, key: MachinePrivate, stack: contextlib.AsyncExitStack
) -> SignIn:
    """How people sign in. What browsers keep is sealed with a key that comes of the server's own, so it outlives a restart."""
    clock = SystemClock()
    providers = []
    if config.providers:
        # Late: an HTTP client and signatures are heavy, and most servers need neither.
        from buri.control.oidc.fetch import HTTPFetcher
        from buri.control.oidc.provider import Provider

        fetcher = HTTPFetcher()
        stack.push_async_callback(fetcher.close)
        providers = [Provider(settings, fetcher, clock) for settings in config.providers]
    return SignIn(coordinator, config.url, key.raw, clock=clock, entropy=os.urandom, providers=providers)


async def _follow_policy(path: Path, coordinator: Coordinator) -> PolicyFile:
    """Take the policy from a file from now on."""
    readings: set[asyncio.Task[None]] = set()

    def spawn() -> None:
        reading = asyncio.ensure_future(file.read_again())
        readings.add(reading)  # the loop itself holds tasks weakly
        reading.add_done_callback(readings.discard)

    file = PolicyFile(path, coordinator.policies, SystemClock(), spawn)
    await file.start()
    return file


async def _open_doors(
    config: ServerConfig,
    certificate: Certificate | None,
    coordinator: Coordinator,
    front: NoiseFront,
    stack: contextlib.AsyncExitStack,
) -> list[str]:
    """Open the public listener: Python's own for plain control alone, else the engine's front door."""
    if not config.relay and not config.tls:
        return [f"{await front.listen_tcp(config.listen)} (control)"]
    handoff = config.state_dir / "front.sock"
    await front.listen_unix(handoff)
    stun: tuple[AddrPort, ...] = ()
    if config.stun is not None:
        stun = (config.stun, AddrPort(config.stun.address, config.stun.port + 1))
    door = NativeFrontDoor(
        FrontConfig(
            listen=(config.listen,),
            stun=stun,
            certificate=certificate,
            relay_key=load_relay_key(config.state_dir).raw if config.relay else None,
            handoff=str(handoff),
        )
    )
    stack.callback(door.close)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _reload, config, door, coordinator)
    if config.relay:
        coordinator.on_relay_keys(lambda keys: door.admit(sorted(keys)))
    what = "control and relay" if config.relay else "control"
    return [
        *(f"{address} ({what})" for address in door.listening()),
        *(f"{address} (STUN, UDP)" for address in door.stun_listening()),
    ]


def _reload(config: ServerConfig, door: FrontDoor, coordinator: Coordinator) -> None:
    """SIGHUP: the certificate's files were renewed."""
    if config.tls_cert is None or config.tls_key is None:
        _log.info("SIGHUP: there is no certificate to read again")
        return
    try:
        certificate = read_certificate(config.tls_cert, config.tls_key)
        door.set_certificate(certificate)
        coordinator.set_derp_map(_derp_map(config, self_signed_pin(certificate.chain_pem)))
    except BuriError as error:
        _log.error("the certificate stays as it was: %s", error)
    else:
        _log.info("read the certificate %s again; new connections get it", config.tls_cert)


def _prepare(state_dir: Path) -> None:
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SystemFault(
            f"The state directory {state_dir} cannot be made: {error.strerror}.",
            remedy="Give another --state-dir.",
        ) from error


def _given_certificate(config: ServerConfig) -> Certificate | None:
    if config.tls_cert is None or config.tls_key is None:
        return None
    return read_certificate(config.tls_cert, config.tls_key)


def _certificate(config: ServerConfig, given: Certificate | None) -> tuple[Certificate | None, str]:
    """The certificate of the public listener, and the CertName that clients need for it ("" = they verify by roots)."""
    if given is not None:
        return given, self_signed_pin(given.chain_pem)
    if not config.relay:
        return None, ""
    chain, key = load_or_make_certificate(config.state_dir, [config.host])
    return Certificate(chain, key), pin(chain)


def _derp_map(config: ServerConfig, certificate: str) -> DERPMap:
    more = read_derp_map(config.derp_map) if config.derp_map is not None else None
    return build_derp_map(_own_relay(config, certificate) if config.relay else None, more)


def _own_relay(config: ServerConfig, certificate: str) -> OwnRelay:
    """What clients are told of our relay. A host name is left to them to resolve; an address is given as it is."""
    addresses: tuple[IPAddress, ...] = ()
    host = config.host
    with contextlib.suppress(ValueError):
        addresses = (ip_address(host),)
    if host == "localhost":
        addresses = (ip_address("127.0.0.1"),)
    return OwnRelay(
        host=host,
        addresses=addresses,
        port=config.public_port,
        stun_port=config.stun.port if config.stun is not None else None,
        certificate=certificate,
    )


async def _greet(config: ServerConfig, coordinator: Coordinator, listening: Sequence[str]) -> None:
    """Say where it listens and how the first node joins. A key goes to a terminal or a 0600 file, never to a log."""
    print(f"Buri server for {config.url}, state in {config.state_dir}")
    for line in listening:
        print(f"Listening on {line}")
    await _tell_owner_link(config, coordinator)
    join = f"buri up --login-server {config.url}"
    path = config.state_dir / FIRST_KEY_FILE
    if coordinator.admin.snapshot.nodes:
        path.unlink(missing_ok=True)
        print(f"A node joins with: {join}", flush=True)
        return
    kept = ""
    with contextlib.suppress(OSError, UnicodeError):
        kept = path.read_text()
    record, text = await coordinator.admin.first_auth_key(kept, _person(), lifetime_s=FIRST_KEY_LIFETIME_S)
    write_secret(path, text.encode() + b"\n")
    minutes = max(1, round((record.expires_s - coordinator.admin.now_s()) / 60))
    shown = text if sys.stdout.isatty() else f"file:{path}"
    print(f"The first node joins within {minutes} minutes with: {join} --auth-key {shown}", flush=True)


async def _tell_owner_link(config: ServerConfig, coordinator: Coordinator) -> None:
    """Until an owner can sign in: the one-time link by which they become able to. Terminal or 0600 file, never a log."""
    path = config.state_dir / OWNER_LINK_FILE
    kept = ""
    with contextlib.suppress(OSError, UnicodeError):
        kept = path.read_text().strip().rpartition("/")[2]
    token = await coordinator.people.owner_link(kept)
    if not token:
        path.unlink(missing_ok=True)
        return
    link = f"{config.url}{WELCOME}{token}"
    write_secret(path, link.encode() + b"\n")
    if sys.stdout.isatty():
        print(f"Become the owner, once: {link}")
    else:
        print(f"The owner's one-time link is in {path}", flush=True)


def _person() -> str:
    """Whose tailnet this is until somebody says otherwise: who called sudo, else who runs this."""
    name = os.environ.get("SUDO_USER") or os.environ.get("USER") or ""
    if not name:
        with contextlib.suppress(KeyError, OSError):
            name = getpass.getuser()
    return name if name not in ("", "root") else f"owner-{socket.gethostname().partition('.')[0] or 'here'}".lower()
