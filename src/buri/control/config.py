"""The server's settings: a flag before a variable before the default; whole and sound, or one clear sentence."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from buri.control.oidc.settings import ProviderSettings, read_providers
from buri.core.addresses import AddrPort
from buri.core.errors import ConfigError
from buri.core.flagvalues import given, listen_address, stun_address

VARIABLE_PREFIX = "BURI_SERVER_"
DEFAULT_STATE_DIR = "/var/lib/buri-server"
DEFAULT_LISTEN = "127.0.0.1:8080"
DEFAULT_STUN_PORT = 3478
_SUCH_AS = "0.0.0.0:8080"
# What Go's netip calls private, or loopback: there, and only there, real clients stay with plain HTTP.
PLAIN_NETWORKS = tuple(
    map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "fc00::/7", "::1/128"))
)


class ServerFlags(msgspec.Struct, frozen=True):
    """What the command line said; None = nothing."""

    state_dir: str | None = None
    listen: str | None = None
    url: str | None = None
    stun: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    no_relay: bool | None = None
    derp_map: str | None = None
    base_domain: str | None = None
    policy: str | None = None
    oidc: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()


class ServerConfig(msgspec.Struct, frozen=True):
    """Sound settings. `stun` None: no STUN. `url` has no trailing slash."""

    state_dir: Path
    listen: AddrPort
    url: str
    stun: AddrPort | None
    tls_cert: Path | None
    tls_key: Path | None
    relay: bool
    derp_map: Path | None
    base_domain: str | None
    policy: Path | None = None
    providers: tuple[ProviderSettings, ...] = ()

    @property
    def tls(self) -> bool:
        return self.url.startswith("https:")

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def public_port(self) -> int:
        """Where clients reach the relay: the URL's port when that is https, else the listener's own.

        A plain URL may lead to a plain proxy, which carries no TLS; the relay always speaks TLS.
        """
        return (urlsplit(self.url).port or 443) if self.tls else self.listen.port


def resolve(flags: ServerFlags, environment: Mapping[str, str]) -> ServerConfig:
    """Put flags, variables and defaults together. Raises ConfigError."""
    text = given(flags, ServerFlags.__struct_fields__, VARIABLE_PREFIX, environment)
    relay = not (flags.no_relay if flags.no_relay is not None else _boolean(environment, "NO_RELAY"))
    listen = listen_address("--listen", text("listen") or DEFAULT_LISTEN, such_as=_SUCH_AS)
    if listen.port == 0:
        raise ConfigError("--listen takes a port that clients can know, not 0.")
    cert, key = text("tls_cert"), text("tls_key")
    if (cert is None) != (key is None):
        raise ConfigError("--tls-cert and --tls-key go together.")
    url = text("url") or _default_url(listen, tls=cert is not None)
    _check_url(url, tls=cert is not None)
    stun: AddrPort | None = None
    if relay:
        stun = stun_address(text("stun") or str(AddrPort(listen.address, DEFAULT_STUN_PORT)), such_as=_SUCH_AS)
    elif text("stun"):
        raise ConfigError("--stun belongs to the relay.", remedy="Drop it, or drop --no-relay.")
    derp_map = text("derp_map")
    return ServerConfig(
        state_dir=Path(text("state_dir") or DEFAULT_STATE_DIR),
        listen=listen,
        url=url.removesuffix("/"),
        stun=stun,
        tls_cert=Path(cert) if cert else None,
        tls_key=Path(key) if key else None,
        relay=relay,
        derp_map=Path(derp_map) if derp_map else None,
        base_domain=text("base_domain"),
        policy=Path(policy).absolute() if (policy := text("policy")) else None,
        providers=read_providers(
            flags.oidc or environment.get(f"{VARIABLE_PREFIX}OIDC", "").split(),
            flags.allow or environment.get(f"{VARIABLE_PREFIX}ALLOW", "").split(),
        ),
    )


def _boolean(environment: Mapping[str, str], name: str) -> bool:
    value = environment.get(VARIABLE_PREFIX + name, "").lower()
    if value in ("", "0", "false", "no"):
        return False
    if value in ("1", "true", "yes"):
        return True
    raise ConfigError(f"{VARIABLE_PREFIX}{name} is true or false, not {value!r}.")


def _bracketed(address: AddrPort) -> str:
    return f"[{address.address}]" if address.address.version == 6 else str(address.address)


def _default_url(listen: AddrPort, *, tls: bool) -> str:
    scheme = "https" if tls else "http"
    host = "localhost" if listen.address.is_unspecified else _bracketed(listen)
    return f"{scheme}://{host}:{listen.port}"


def _check_url(url: str, *, tls: bool) -> None:
    refusal = ConfigError(f"--url takes http(s)://HOST[:PORT], not {url!r}.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise refusal from error
    plain_host = parts.hostname and not (
        parts.path.removeprefix("/") or parts.query or parts.fragment or parts.username is not None
    )
    if parts.scheme not in ("http", "https") or not plain_host or port == 0:
        raise refusal
    assert parts.hostname is not None
    if parts.scheme == "https":
        if not tls:
            raise ConfigError(
                f"{url} needs a certificate.", remedy="Give --tls-cert and --tls-key, or use a plain private address."
            )
        return
    if tls:
        raise ConfigError(f"There is a certificate, but {url} is plain.", remedy="Give an https:// URL with --url.")
    if not _plain_is_fine(parts.hostname):
        raise ConfigError(
            f"Clients speak plain HTTP to private addresses and localhost only, and {parts.hostname} is neither: after a"
            " reconnect they would insist on TLS at port 443.",
            remedy="Give --tls-cert and --tls-key with an https:// URL, or a private address (10.…, 192.168.…).",
        )


def _plain_is_fine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return any(address in network for network in PLAIN_NETWORKS if network.version == address.version)
