"""What a provider says of itself: its discovery document, read with distrust (OpenID Connect Discovery 1.0, 3 and 4)."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec

from buri.control.oidc.settings import GUID, MICROSOFT_HOST, ProviderSettings

WELL_KNOWN = "/.well-known/openid-configuration"
TENANT_PLACE = "{tenantid}"
# Asymmetric ones only: with an HMAC anybody who knows our client secret could write identities.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")


class NonsenseError(Exception):
    """What a provider sent cannot be right; the text says what, for the end of a sentence."""


class Metadata(msgspec.Struct, frozen=True):
    """What we use of it. `issuer` of Microsoft's shared tenants holds TENANT_PLACE."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str
    algorithms: tuple[str, ...]
    secret_in_body: bool
    says_issuer: bool


def discovery_url(settings: ProviderSettings) -> str:
    return settings.issuer.rstrip("/") + WELL_KNOWN


def read_metadata(document: Mapping[str, object], settings: ProviderSettings) -> Metadata:
    """Check a discovery document against the settings. Raises NonsenseError."""
    issuer = _text(document, "issuer")
    if not _is_issuer(issuer, settings):
        raise NonsenseError(f"it calls itself {issuer[:100]!r}, not {settings.issuer!r}")
    if "code" not in _texts(document, "response_types_supported", ("code",)):
        raise NonsenseError("it does not know the code flow")
    if "S256" not in _texts(document, "code_challenge_methods_supported", ("S256",)):
        raise NonsenseError("it does not know PKCE with S256")
    told = _texts(document, "id_token_signing_alg_values_supported", ("RS256",))
    algorithms = tuple(name for name in ALGORITHMS if name in told)
    if not algorithms:
        raise NonsenseError("it signs identities in no way that can be checked")
    ways = _texts(document, "token_endpoint_auth_methods_supported", ("client_secret_basic",))
    plain = settings.issuer.startswith("http:")
    return Metadata(
        issuer=issuer,
        authorization_endpoint=_endpoint(document, "authorization_endpoint", plain=plain),
        token_endpoint=_endpoint(document, "token_endpoint", plain=plain),
        jwks_uri=_endpoint(document, "jwks_uri", plain=plain),
        userinfo_endpoint=_endpoint(document, "userinfo_endpoint", plain=plain)
        if document.get("userinfo_endpoint")
        else "",
        algorithms=algorithms,
        secret_in_body="client_secret_basic" not in ways and "client_secret_post" in ways,
        says_issuer=document.get("authorization_response_iss_parameter_supported") is True,
    )


def token_issuer(metadata: Metadata, claims: Mapping[str, object], settings: ProviderSettings) -> str:
    """Who must have issued a token with these claims; Microsoft's shared tenants sign for the tenant it names."""
    if TENANT_PLACE not in metadata.issuer:
        return metadata.issuer
    tenant = claims.get("tid")
    if settings.kind != "microsoft" or not isinstance(tenant, str) or not GUID.fullmatch(tenant):
        return ""
    return metadata.issuer.replace(TENANT_PLACE, tenant)


def _is_issuer(issuer: str, settings: ProviderSettings) -> bool:
    if issuer == settings.issuer:
        return True
    if settings.kind != "microsoft":
        return False
    # A tenant is asked for by id, by one of its domains, or as a shared one; the document knows it by id or place-holder.
    asked = settings.issuer.removeprefix(f"{MICROSOFT_HOST}/").removesuffix("/v2.0")
    tenant = issuer.removeprefix(f"{MICROSOFT_HOST}/").removesuffix("/v2.0")
    if issuer != f"{MICROSOFT_HOST}/{tenant}/v2.0" or GUID.fullmatch(asked):
        return False
    shared = asked in ("common", "organizations")
    return tenant == TENANT_PLACE if shared else GUID.fullmatch(tenant) is not None


def _text(document: Mapping[str, object], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str) or not value:
        raise NonsenseError(f"its description lacks {name}")
    return value


def _texts(document: Mapping[str, object], name: str, default: tuple[str, ...]) -> tuple[str, ...]:
    value = document.get(name)
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else default


def _endpoint(document: Mapping[str, object], name: str, *, plain: bool) -> str:
    url = _text(document, name)
    try:
        parts = urlsplit(url)
        sound = bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
        parts = urlsplit("")
    if not sound or parts.scheme not in (("https", "http") if plain else ("https",)) or not url.isprintable():
        raise NonsenseError(f"its {name} is no https address")
    return url
