"""A relay's settings: a flag before a variable before the default; whole and sound, or one clear sentence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from buri.core.addresses import AddrPort
from buri.core.errors import ConfigError, WireError

VARIABLE_PREFIX = "BURI_RELAY_"
DEFAULT_STATE_DIR = "/var/lib/buri-relay"
DEFAULT_LISTEN = "0.0.0.0:443"
DEFAULT_STUN_PORT = 3478
DEFAULT_REGION = 900
# Where a DERP map has room for relays that people run themselves (wire reference 1d); the server's own relay is 999.
REGIONS = range(900, 999)


class RelayFlags(msgspec.Struct, frozen=True):
    """What the command line said; None = nothing."""

    state_dir: str | None = None
    listen: str | None = None
    hostname: str | None = None
    stun: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    region: str | None = None
    metrics: str | None = None


class RelayConfig(msgspec.Struct, frozen=True):
    """Sound settings.

    `hostname` None: whatever address this host has. `stun` None: no STUN, else also on the next port. `tls_files`
    (chain, key) None: a certificate of our own. `metrics` None: none are served.
    """

    state_dir: Path
    listen: AddrPort
    hostname: str | None
    stun: AddrPort | None
    tls_files: tuple[Path, Path] | None
    region: int
    metrics: AddrPort | None


def resolve(flags: RelayFlags, environment: Mapping[str, str]) -> RelayConfig:
    """Put flags, variables and defaults together. Raises ConfigError."""
    known = {f"{VARIABLE_PREFIX}{name.upper()}": name for name in RelayFlags.__struct_fields__}
    for name in environment:
        if name.startswith(VARIABLE_PREFIX) and name not in known:
            raise ConfigError(f"The variable {name} is not known.", remedy=f"Known are {', '.join(sorted(known))}.")

    def text(name: str) -> str | None:
        flag = getattr(flags, name)
        return flag if flag is not None else environment.get(f"{VARIABLE_PREFIX}{name.upper()}") or None

    listen = _address("--listen", text("listen") or DEFAULT_LISTEN)
    hostname = text("hostname")
    chain, key = text("tls_cert"), text("tls_key")
    if (chain is None) != (key is None):
        raise ConfigError("--tls-cert and --tls-key go together.")
    if chain is not None and hostname is None:
        raise ConfigError("--tls-cert needs --hostname.", remedy="Give the name that the certificate is for.")
    metrics = text("metrics")
    return RelayConfig(
        state_dir=Path(text("state_dir") or DEFAULT_STATE_DIR),
        listen=listen,
        hostname=hostname,
        stun=_stun(text("stun"), listen),
        tls_files=(Path(chain), Path(key)) if chain is not None and key is not None else None,
        region=_region(text("region")),
        metrics=_address("--metrics", metrics) if metrics is not None else None,
    )


def _address(flag: str, text: str) -> AddrPort:
    try:
        return AddrPort.parse(f"0.0.0.0{text}" if text.startswith(":") else text)  # ":443", as Go programs take it
    except WireError as error:
        raise ConfigError(f"{flag} takes ADDRESS:PORT (such as 0.0.0.0:443), not {text!r}.") from error


def _stun(text: str | None, listen: AddrPort) -> AddrPort | None:
    if text == "none":
        return None
    stun = _address("--stun", text) if text is not None else AddrPort(listen.address, DEFAULT_STUN_PORT)
    if not 0 < stun.port < 65535:
        raise ConfigError("--stun takes a port from 1 to 65534: the next one answers too.")
    return stun


def _region(text: str | None) -> int:
    if text is None:
        return DEFAULT_REGION
    if text.isascii() and text.isdigit() and int(text) in REGIONS:
        return int(text)
    raise ConfigError(f"--region takes a number from {REGIONS[0]} to {REGIONS[-1]}, not {text!r}.")
