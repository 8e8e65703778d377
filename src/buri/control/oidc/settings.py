"""The providers people sign in at, as the server's settings name them: `NAME=ISSUER,CLIENT_ID,SECRETFILE`.

`google` and `microsoft` are known by name: `google=CLIENT_ID,SECRETFILE`, `microsoft=TENANT,CLIENT_ID,SECRETFILE`. Whom a
provider may bring is said by `[NAME:]WHO`: an e-mail address, a domain, a Microsoft tenant's id, or `*`. Without a word
it brings nobody but those who were invited: half of the world has an account at Google.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from buri.core.errors import ConfigError

GOOGLE_ISSUER = "https://accounts.google.com"
MICROSOFT_HOST = "https://login.microsoftonline.com"
MAX_SECRET_BYTES = 4096
GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")
_DOMAIN = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+")
_SUCH_AS = "NAME=ISSUER,CLIENT_ID,SECRETFILE, google=CLIENT_ID,SECRETFILE or microsoft=TENANT,CLIENT_ID,SECRETFILE"


class Allowed(msgspec.Struct, frozen=True):
    """Whom a provider may bring uninvited; lower case all. Any one that fits is enough."""

    everyone: bool = False
    domains: frozenset[str] = frozenset()
    users: frozenset[str] = frozenset()
    tenants: frozenset[str] = frozenset()


class ProviderSettings(msgspec.Struct, frozen=True):
    """One provider. `name` is in its callback's address; `client_secret` "": a public client."""

    name: str
    label: str
    kind: Literal["oidc", "google", "microsoft"]
    issuer: str
    client_id: str
    client_secret: str
    scopes: tuple[str, ...] = ("openid", "email", "profile")
    allowed: Allowed = Allowed()

    def __repr__(self) -> str:
        return f"ProviderSettings({self.name}, {self.issuer})"  # never the secret


def read_providers(providers: Sequence[str], allow: Sequence[str]) -> tuple[ProviderSettings, ...]:
    """Settings from their texts; secrets are read from their files. Raises ConfigError."""
    found: dict[str, ProviderSettings] = {}
    for text in providers:
        settings = _read_provider(text)
        if settings.name in found:
            raise ConfigError(f"--oidc names {settings.name!r} twice.", remedy="Give each provider its own name.")
        found[settings.name] = settings
    for text in allow:
        _allow(found, text)
    return tuple(found.values())


def _read_provider(text: str) -> ProviderSettings:
    name, _, rest = text.partition("=")
    parts = [part.strip() for part in rest.split(",")]
    if not _NAME.fullmatch(name) or not all(parts):
        raise ConfigError(f"--oidc {text!r} is not understood.", remedy=f"It reads {_SUCH_AS}.")
    if name == "google" and len(parts) == 2:
        return ProviderSettings(name, "Google", "google", GOOGLE_ISSUER, parts[0], _secret(parts[1]))
    if name == "microsoft" and len(parts) == 3 and _TENANT.fullmatch(parts[0]):
        issuer = f"{MICROSOFT_HOST}/{parts[0].lower()}/v2.0"
        return ProviderSettings(name, "Microsoft", "microsoft", issuer, parts[1], _secret(parts[2]))
    if name in ("google", "microsoft") or len(parts) not in (2, 3):
        raise ConfigError(f"--oidc {text!r} is not understood.", remedy=f"It reads {_SUCH_AS}.")
    check_issuer(parts[0])
    secret = _secret(parts[2]) if len(parts) == 3 else ""
    return ProviderSettings(name, name, "oidc", parts[0], parts[1], secret)


def check_issuer(issuer: str) -> None:
    """An issuer is an https URL, or a plain one of this machine or its network. Raises ConfigError."""
    refusal = ConfigError(
        f"{issuer!r} cannot be an issuer.", remedy="It is the https:// address that the provider calls its issuer."
    )
    try:
        parts = urlsplit(issuer)
        host = parts.hostname or ""
        _ = parts.port  # a wrong one is only found when it is asked for
    except ValueError as error:
        raise refusal from error
    if not host or parts.query or parts.fragment or parts.username is not None:
        raise refusal
    if parts.scheme == "https" or (parts.scheme == "http" and _is_near(host)):
        return
    raise refusal


def _is_near(host: str) -> bool:
    try:
        return ip_address(host).is_private
    except ValueError:
        return host == "localhost"


def _secret(name: str) -> str:
    try:
        with Path(name).open("rb") as file:
            text = file.read(MAX_SECRET_BYTES + 1).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError(f"The client secret cannot be read from {name}: {reason}.") from error
    if not text or len(text) > MAX_SECRET_BYTES or not text.isprintable():
        raise ConfigError(f"{name} does not hold a client secret.", remedy="It is one line, as the provider gave it.")
    return text


def _allow(found: dict[str, ProviderSettings], text: str) -> None:
    name, _, who = text.rpartition(":")
    names = [name] if name else list(found)
    if not names or any(one not in found for one in names):
        raise ConfigError(
            f"--allow {text!r} is about a provider that there is not.", remedy="Name the provider with --oidc."
        )
    who = who.strip().lower()
    if who == "*" and len(names) > 1:
        raise ConfigError(
            "--allow '*' must say which provider it means.", remedy=f"For example: --allow '{names[0]}:*'"
        )
    for one in names:
        settings = found[one]
        found[one] = msgspec.structs.replace(settings, allowed=_widened(settings.allowed, who, text))


def _widened(allowed: Allowed, who: str, text: str) -> Allowed:
    local, at, domain = who.rpartition("@")
    if who == "*":
        return msgspec.structs.replace(allowed, everyone=True)
    if GUID.fullmatch(who):
        return msgspec.structs.replace(allowed, tenants=allowed.tenants | {who})
    if _DOMAIN.fullmatch(domain) and (local or not at):
        if at:
            return msgspec.structs.replace(allowed, users=allowed.users | {who})
        return msgspec.structs.replace(allowed, domains=allowed.domains | {who})
    raise ConfigError(
        f"--allow {text!r} is not understood.", remedy="It is a domain, an e-mail address, a tenant's id or *."
    )
