"""Providers as the command line names them."""

from __future__ import annotations

from pathlib import Path

import pytest

from buri.control.oidc.settings import Allowed, read_providers
from buri.core.errors import ConfigError


@pytest.fixture
def secret(tmp_path: Path) -> str:
    path = tmp_path / "secret"
    path.write_text("the secret\n")
    return str(path)


def test_a_provider_is_named_with_its_issuer_client_and_secret(secret: str) -> None:
    own, google, microsoft, public = read_providers(
        [
            f"home=https://id.example/realms/x,buri,{secret}",
            f"google=abc.apps.googleusercontent.com,{secret}",
            f"microsoft=Contoso.onmicrosoft.com,guid,{secret}",
            "plain=http://192.168.1.5:9000,buri",
        ],
        [],
    )
    assert (own.issuer, own.client_id, own.client_secret) == ("https://id.example/realms/x", "buri", "the secret")
    assert (google.kind, google.issuer, google.label) == ("google", "https://accounts.google.com", "Google")
    assert microsoft.issuer == "https://login.microsoftonline.com/contoso.onmicrosoft.com/v2.0"
    assert (public.client_secret, public.allowed) == ("", Allowed())
    assert "the secret" not in repr(own)


def test_whom_a_provider_may_bring_is_said_for_one_or_for_all(secret: str) -> None:
    one, two = read_providers(
        [f"google=a,{secret}", f"home=https://id.example,b,{secret}"],
        ["Example.org", "home:*", "google:Alice@gmail.com", "google:11111111-2222-3333-4444-555555555555"],
    )
    assert sorted(one.allowed.domains) == sorted(two.allowed.domains) == ["example.org"]
    assert (one.allowed.everyone, two.allowed.everyone) == (False, True)
    assert (sorted(one.allowed.users), sorted(two.allowed.users)) == (["alice@gmail.com"], [])
    assert sorted(one.allowed.tenants) == ["11111111-2222-3333-4444-555555555555"]


@pytest.mark.parametrize(
    "text",
    ["", "home", "home=", "=https://x,y", "Home=https://id.example,b", "home=https://id.example", "google=a,b,c,d",
     "microsoft=a,b", "home=ftp://id.example,b", "home=http://id.example,b", "home=https://,b",
     "home=https://id.example?x,b", "home=https://u@id.example,b", "home=https://id.example:x,b", "home=https://[,b"],
)  # fmt: skip
def test_a_provider_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        read_providers([text], [])


def test_a_secret_that_is_none_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"\n", b"\xff\xfe", b"two\nlines", b"x" * 5000):
        path = tmp_path / "secret"
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="secret"):
            read_providers([f"home=https://id.example,b,{path}"], [])
    with pytest.raises(ConfigError, match="cannot be read"):
        read_providers([f"home=https://id.example,b,{tmp_path}"], [])
    with pytest.raises(ConfigError, match="cannot be read"):
        read_providers([f"home=https://id.example,b,{tmp_path}/none"], [])


@pytest.mark.parametrize("who", ["nobody:*", "home:", "x", "@example.org", "home:a@b@", "home:a b.c", "*"])
def test_whom_it_may_bring_must_be_understood(who: str) -> None:
    providers = ["home=https://id.example,b", "work=https://work.example,b"]
    with pytest.raises(ConfigError, match="--allow"):
        read_providers(providers, [who])


def test_a_name_is_given_once() -> None:
    with pytest.raises(ConfigError, match="twice"):
        read_providers(["home=https://a.example,b", "home=https://b.example,b"], [])
