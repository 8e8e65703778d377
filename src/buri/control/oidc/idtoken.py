"""An ID token checked: signature by joserfc, claims by the letter of OpenID Connect Core 1.0, 3.1.3.7."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence

import msgspec
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey, import_key

from buri.control.oidc.metadata import Metadata, token_issuer
from buri.control.oidc.settings import ProviderSettings
from buri.wire.badjson import BAD_JSON

LEEWAY_S = 60.0
MAX_TOKEN_CHARS = 64 << 10
MAX_KEYS = 100
_KINDS: dict[str, type[Key]] = {"RS": RSAKey, "PS": RSAKey, "ES": ECKey, "Ed": OKPKey}


class TokenError(Exception):
    """A token that must not be believed; the text says why, for the end of a sentence."""


class UnknownKeyError(TokenError):
    """It names a key that the provider has not shown (yet)."""


def read_keys(document: Mapping[str, object]) -> list[Key]:
    """The public keys of a JWK set that we can use; kinds that we do not know are passed over."""
    listed = document.get("keys")
    found: list[Key] = []
    for one in listed[:MAX_KEYS] if isinstance(listed, list) else ():
        if not isinstance(one, dict) or one.get("use", "sig") != "sig" or one.get("kty") == "oct":
            continue
        try:
            found.append(import_key(one))
        except (JoseError, ValueError, TypeError, KeyError):
            continue  # one key that does not read must not keep out the others
    return found


def read_token(
    text: str, keys: Sequence[Key], metadata: Metadata, settings: ProviderSettings, *, nonce: str, now_s: float
) -> dict[str, object]:
    """The claims of a token that is genuine, fresh, and meant for this very sign-in. Raises TokenError."""
    claims = _verified(text, keys, metadata.algorithms)
    issuer = token_issuer(metadata, claims, settings)
    told = claims.get("iss")
    if settings.kind == "google" and told == "accounts.google.com":  # Google's documents allow both spellings
        told = metadata.issuer
    if not issuer or told != issuer:
        raise TokenError("another issuer signed it")
    claims["iss"] = issuer
    audience = claims.get("aud")
    meant = audience if isinstance(audience, list) else [audience]
    if settings.client_id not in meant:
        raise TokenError("it is meant for another program")
    party = claims.get("azp")
    if (len(meant) > 1 or party is not None) and party != settings.client_id:
        raise TokenError("it was given to another program")
    if _moment(claims, "exp") + LEEWAY_S <= now_s:
        raise TokenError("it is past its time; compare the clocks")
    if _moment(claims, "iat") - LEEWAY_S > now_s or ("nbf" in claims and _moment(claims, "nbf") - LEEWAY_S > now_s):
        raise TokenError("it is from the future; compare the clocks")
    told_nonce = claims.get("nonce")
    if not isinstance(told_nonce, str) or not hmac.compare_digest(told_nonce.encode(), nonce.encode()):
        raise TokenError("it belongs to another sign-in")
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= 255 or not subject.isprintable():
        raise TokenError("it names nobody")
    return claims


def _verified(text: str, keys: Sequence[Key], algorithms: Sequence[str]) -> dict[str, object]:
    if len(text) > MAX_TOKEN_CHARS:
        raise TokenError("it is too long")
    try:
        header = jws.extract_compact(text.encode()).headers()
        algorithm, name = header.get("alg"), header.get("kid")
    except (JoseError, ValueError, TypeError, KeyError, UnicodeError) as error:
        raise TokenError("it is no signed token") from error
    if algorithm not in algorithms:
        raise TokenError("it is signed in a way that is not allowed")
    kind = _KINDS[str(algorithm)[:2]]
    fit = [key for key in keys if isinstance(key, kind) and (name is None or key.kid in (None, name))]
    if not fit:
        raise UnknownKeyError("it is signed by an unknown key")
    for key in fit:
        try:
            payload = jws.deserialize_compact(text, key, algorithms=list(algorithms)).payload
        except (JoseError, ValueError, TypeError, KeyError):
            continue
        try:
            return msgspec.json.decode(payload, type=dict[str, object])
        except BAD_JSON as error:
            raise TokenError("it does not hold what it should") from error
    raise TokenError("its signature is wrong")


def _moment(claims: Mapping[str, object], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TokenError(f"it lacks {name}")
    return float(value)
