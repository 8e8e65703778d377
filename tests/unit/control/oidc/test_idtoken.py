"""ID tokens: what is right passes, and each thing that may be wrong is refused by its own words."""

from __future__ import annotations

import base64
import hmac
import json
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import RSAKey

from buri.control.oidc.idtoken import TokenError, UnknownKeyError, read_keys, read_token
from buri.control.oidc.metadata import Metadata, read_metadata
from buri.control.oidc.settings import ProviderSettings

NOW_S = 1_800_000_000.0
KEY = RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})
OTHER = RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})
SETTINGS = ProviderSettings("idp", "IdP", "oidc", "https://idp.example", "buri", "secret")
METADATA = read_metadata(
    {
        "issuer": "https://idp.example",
        "authorization_endpoint": "https://idp.example/a",
        "token_endpoint": "https://idp.example/t",
        "jwks_uri": "https://idp.example/k",
        "id_token_signing_alg_values_supported": ["RS256", "HS256", "none"],
    },
    SETTINGS,
)
RIGHT: dict[str, Any] = {
    "iss": "https://idp.example",
    "aud": "buri",
    "sub": "1",
    "iat": NOW_S,
    "exp": NOW_S + 60,
    "nonce": "n",
}


def token(key: Any = KEY, header: Any = None, **claims: Any) -> str:
    body = {name: value for name, value in {**RIGHT, **claims}.items() if value is not None}
    header = header or {"alg": "RS256", "kid": "one"}
    return jws.serialize_compact(header, json.dumps(body), key, algorithms=["RS256"])


def read(text: str, metadata: Metadata = METADATA, settings: ProviderSettings = SETTINGS) -> dict[str, object]:
    keys = read_keys({"keys": [KEY.as_dict(private=False)]})
    return read_token(text, keys, metadata, settings, nonce="n", now_s=NOW_S)


def test_a_right_token_tells_its_claims() -> None:
    assert read(token(email="a@example.com"))["email"] == "a@example.com"
    assert read(token(aud=["buri", "other"], azp="buri"))["sub"] == "1"
    assert read(token(header={"alg": "RS256"}))["sub"] == "1"  # one that names no key


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"iss": "https://evil.example"}, "another issuer"),
        ({"iss": None}, "another issuer"),
        ({"iss": ["https://idp.example"]}, "another issuer"),
        ({"aud": "somebody"}, "meant for another program"),
        ({"aud": None}, "meant for another program"),
        ({"aud": ["buri", "other"]}, "given to another program"),
        ({"azp": "other"}, "given to another program"),
        ({"exp": NOW_S - 61}, "past its time"),
        ({"exp": None}, "lacks exp"),
        ({"exp": "soon"}, "lacks exp"),
        ({"exp": True}, "lacks exp"),
        ({"iat": NOW_S + 61}, "from the future"),
        ({"nbf": NOW_S + 61}, "from the future"),
        ({"iat": None}, "lacks iat"),
        ({"nonce": "another"}, "another sign-in"),
        ({"nonce": None}, "another sign-in"),
        ({"nonce": 1}, "another sign-in"),
        ({"sub": ""}, "names nobody"),
        ({"sub": None}, "names nobody"),
        ({"sub": 7}, "names nobody"),
        ({"sub": "x" * 256}, "names nobody"),
    ],
)
def test_a_wrong_claim_is_refused(claims: dict[str, Any], words: str) -> None:
    with pytest.raises(TokenError, match=words):
        read(token(**claims))


def test_a_signature_of_another_key_is_refused() -> None:
    with pytest.raises(TokenError, match="signature is wrong"):
        read(token(OTHER))
    head, body, signature = token().split(".")
    forged = base64.urlsafe_b64encode(json.dumps({**RIGHT, "sub": "2"}).encode()).decode().rstrip("=")
    with pytest.raises(TokenError, match="signature is wrong"):
        read(f"{head}.{forged}.{signature}")
    assert body != forged


def test_unsigned_tokens_and_those_signed_with_what_everybody_knows_are_refused() -> None:
    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).decode().rstrip("=")

    for algorithm in ("none", "HS256", "RS512"):
        text = f"{part(json.dumps({'alg': algorithm, 'kid': 'one'}).encode())}.{part(json.dumps(RIGHT).encode())}"
        signature = hmac.digest(KEY.as_pem(private=False), text.encode(), "sha256") if algorithm == "HS256" else b""
        with pytest.raises(TokenError, match="not allowed"):
            read(f"{text}.{part(signature)}")


def test_an_unknown_key_is_told_apart_so_that_it_can_be_fetched() -> None:
    with pytest.raises(UnknownKeyError):
        read(token(header={"alg": "RS256", "kid": "two"}))


@pytest.mark.parametrize("text", ["", "a", "a.b", "a.b.c", "....", "é.é.é", "e30.e30.e30", "x" * (65 << 10)])
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(TokenError):
        read(text)


def test_a_signed_text_that_is_no_object_is_refused() -> None:
    text = jws.serialize_compact({"alg": "RS256", "kid": "one"}, "[1]", KEY, algorithms=["RS256"])
    with pytest.raises(TokenError, match="does not hold what it should"):
        read(text)


@pytest.mark.parametrize(
    "document",
    [{}, {"keys": 1}, {"keys": [1, None, {}]}, {"keys": [{"kty": "RSA"}]}, {"keys": [{"kty": "oct", "k": "AAAA"}]}],
)
def test_keys_that_do_not_read_are_passed_over(document: dict[str, object]) -> None:
    assert read_keys(document) == []
    listed = document.get("keys")
    right = KEY.as_dict(private=False)
    both = read_keys({"keys": [*(listed if isinstance(listed, list) else []), right]})
    assert [key.kid for key in both] == ["one"]


def test_google_may_leave_out_the_scheme_of_its_issuer() -> None:
    settings = ProviderSettings("google", "Google", "google", "https://accounts.google.com", "buri", "s")
    metadata = Metadata("https://accounts.google.com", "", "", "", "", ("RS256",), False, False)
    for told in ("accounts.google.com", "https://accounts.google.com"):
        assert read(token(iss=told), metadata, settings)["iss"] == "https://accounts.google.com"


def test_a_shared_tenant_of_microsoft_signs_for_the_tenant_it_names() -> None:
    tenant = "11111111-2222-3333-4444-555555555555"
    host = "https://login.microsoftonline.com"
    settings = ProviderSettings("microsoft", "Microsoft", "microsoft", f"{host}/common/v2.0", "buri", "s")
    metadata = Metadata(f"{host}/{{tenantid}}/v2.0", "", "", "", "", ("RS256",), False, False)
    assert read(token(iss=f"{host}/{tenant}/v2.0", tid=tenant), metadata, settings)["tid"] == tenant
    for claims in (
        {"iss": f"{host}/{tenant}/v2.0"},
        {"iss": f"{host}/{tenant}/v2.0", "tid": "99999999-2222-3333-4444-555555555555"},
        {"iss": f"{host}/{{tenantid}}/v2.0", "tid": "{tenantid}"},
        {"iss": "https://evil.example", "tid": tenant},
    ):
        with pytest.raises(TokenError, match="another issuer"):
            read(token(**claims), metadata, settings)
