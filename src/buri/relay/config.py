"""A stand-alone relay's settings: a flag before a BURI_RELAY_… variable before the default."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from buri.core.addresses import AddrPort
from buri.core.errors import ConfigError, WireError

VARIABLE_PREFIX = "BURI_RELAY_"
DEFAULT_STATE_DIR = "/var/lib/buri-relay"
DEFAULT_LISTEN = "0.0.0.0:443"
DEFAULT_STUN = "0.0.0.0:3478"


class RelayFlags(msgspec.Struct, frozen=True):
    """What the command line said; None = nothing."""

    state_dir: str | None = None
    listen: str | None = None
    stun: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None


class RelayConfig(msgspec.Struct, frozen=True):
    """Sound settings."""

    state_dir: Path
    listen: AddrPort
    stun: AddrPort
    tls_cert: Path | None
    tls_key: Path | None


def resolve(flags: RelayFlags, environment: Mapping[str, str]) -> RelayConfig:
    """Put flags, variables and defaults together. Raises ConfigError."""
    known = {f"{VARIABLE_PREFIX}{name.upper()}" for name in RelayFlags.__struct_fields__}
    for name in environment:
        if name.startswith(VARIABLE_PREFIX) and name not in known:
            raise ConfigError(f"The variable {name} is not known.", remedy=f"Known are {', '.join(sorted(known))}.")

    def text(name: str) -> str | None:
        flag: str | None = getattr(flags, name)
        return flag if flag is not None else environment.get(f"{VARIABLE_PREFIX}{name.upper()}") or None

    cert, key = text("tls_cert"), text("tls_key")
    if (cert is None) != (key is None):
        raise ConfigError("--tls-cert and --tls-key go together.")
    stun = _address("--stun", text("stun") or DEFAULT_STUN)
    if not 0 < stun.port < 65535:
        raise ConfigError("--stun takes a port from 1 to 65534: the next one answers too.")
    return RelayConfig(
        state_dir=Path(text("state_dir") or DEFAULT_STATE_DIR),
        listen=_address("--listen", text("listen") or DEFAULT_LISTEN),
        stun=stun,
        tls_cert=Path(cert) if cert else None,
        tls_key=Path(key) if key else None,
    )


def _address(flag: str, text: str) -> AddrPort:
    host, _, port = text.rpartition(":")
    try:
        return AddrPort.parse(text if host else f"0.0.0.0:{port}")
    except WireError as error:
        raise ConfigError(f"{flag} takes ADDRESS:PORT (such as 0.0.0.0:443), not {text!r}.") from error
