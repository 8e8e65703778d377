"""A relay's settings: a flag before a variable before the default; whole and sound, or one clear sentence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from buri.core.addresses import AddrPort
from buri.core.errors import ConfigError
from buri.core.flagvalues import given, listen_address, stun_address

VARIABLE_PREFIX = "BURI_RELAY_"
DEFAULT_STATE_DIR = "/var/lib/buri-relay"
DEFAULT_LISTEN = "0.0.0.0:443"
DEFAULT_STUN_PORT = 3478
_SUCH_AS = "0.0.0.0:443"
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
    text = given(flags, RelayFlags.__struct_fields__, VARIABLE_PREFIX, environment)
    listen = listen_address("--listen", text("listen") or DEFAULT_LISTEN, such_as=_SUCH_AS)
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
        metrics=listen_address("--metrics", metrics, such_as=_SUCH_AS) if metrics is not None else None,
    )


def _stun(text: str | None, listen: AddrPort) -> AddrPort | None:
    if text == "none":
        return None
    return stun_address(text or str(AddrPort(listen.address, DEFAULT_STUN_PORT)), such_as=_SUCH_AS)


def _region(text: str | None) -> int:
    if text is None:
        return DEFAULT_REGION
    if text.isascii() and text.isdigit() and int(text) in REGIONS:
        return int(text)
    raise ConfigError(f"--region takes a number from {REGIONS[0]} to {REGIONS[-1]}, not {text!r}.")
