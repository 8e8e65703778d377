"""Google's and Microsoft's people: whose address counts, and who may come."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from buri.control.oidc.claims import read_person
from buri.control.oidc.metadata import NonsenseError, read_metadata, token_issuer
from buri.control.oidc.settings import MICROSOFT_HOST, Allowed, ProviderSettings

VECTORS = Path(__file__).resolve().parents[3] / "vectors" / "oidc"
GOOGLE: dict[str, Any] = json.loads((VECTORS / "google.json").read_text())
MICROSOFT: dict[str, Any] = json.loads((VECTORS / "microsoft.json").read_text())
CONTOSO = "72f988bf-0000-41af-91ab-2d7cd011db47"


def google(**allowed: Any) -> ProviderSettings:
    return ProviderSettings(
        "google", "Google", "google", "https://accounts.google.com", "c", "s", allowed=Allowed(**allowed)
    )


def microsoft(tenant: str = "common", **allowed: Any) -> ProviderSettings:
    issuer = f"{MICROSOFT_HOST}/{tenant}/v2.0"
    return ProviderSettings("microsoft", "Microsoft", "microsoft", issuer, "c", "s", allowed=Allowed(**allowed))


def home(**allowed: Any) -> ProviderSettings:
    return ProviderSettings("home", "home", "oidc", "https://id.example", "c", "s", allowed=Allowed(**allowed))


def comes(claims: dict[str, Any], settings: ProviderSettings) -> bool:
    return read_person(claims, settings)[1]


def test_google_answers_for_gmail_and_for_its_workspaces_alone() -> None:
    domains = frozenset({"gmail.com", "example.org"})
    assert comes(GOOGLE["personal"], google(domains=domains))
    assert comes(GOOGLE["workspace"], google(domains=domains))
    assert not comes(GOOGLE["foreign_address"], google(domains=domains))
    assert comes(GOOGLE["foreign_address"], google(users=frozenset({"former@example.org"})))
    assert not comes({**GOOGLE["workspace"], "email_verified": False}, google(domains=domains))
    assert not comes(GOOGLE["personal"], google())
    person, _ = read_person(GOOGLE["personal"], google())
    assert (person.subject, person.display_name) == ("10769150350006150715113082367", "Ann Example")
    assert person.picture == "https://lh3.googleusercontent.com/a/ann"


def test_microsofts_addresses_count_where_one_tenant_is_named() -> None:
    domains = frozenset({"contoso.com"})
    assert comes(MICROSOFT["work"], microsoft(CONTOSO, domains=domains))
    assert comes(MICROSOFT["work"], microsoft("contoso.com", domains=domains))
    assert not comes(MICROSOFT["work"], microsoft("common", domains=domains))
    assert comes({**MICROSOFT["work"], "xms_edov": 1}, microsoft("common", domains=domains))
    assert comes(MICROSOFT["work"], microsoft("common", tenants=frozenset({CONTOSO})))
    assert read_person(MICROSOFT["work"], microsoft(CONTOSO))[0].email == "abe@contoso.com"


def test_who_writes_anothers_address_into_a_tenant_of_their_own_stays_outside() -> None:
    forged = MICROSOFT["forged_address"]
    for tenant in ("common", "organizations"):
        settings = microsoft(
            tenant,
            domains=frozenset({"contoso.com"}),
            users=frozenset({"abe@contoso.com"}),
            tenants=frozenset({CONTOSO}),
        )
        person, may_come = read_person(forged, settings)
        assert (may_come, person.email_trusted) == (False, False)


def test_personal_accounts_of_microsoft_tell_their_address_as_their_user_name() -> None:
    person, may_come = read_person(MICROSOFT["personal"], microsoft(users=frozenset({"ann@outlook.com"})))
    assert (person.email, person.email_trusted, may_come) == ("ann@outlook.com", True, True)


@pytest.mark.parametrize("verified", [True, "true", "True", 1])
def test_some_write_their_booleans_otherwise(verified: object) -> None:
    claims = {"iss": "i", "sub": "s", "email": "Ann@Example.org", "email_verified": verified}
    assert comes(claims, home(domains=frozenset({"example.org"})))


@pytest.mark.parametrize("verified", [False, None, "false", 0, "yes", [], {}])
def test_an_unproven_address_opens_nothing(verified: object) -> None:
    claims = {"iss": "i", "sub": "s", "email": "ann@example.org", "email_verified": verified}
    settings = home(domains=frozenset({"example.org"}), users=frozenset({"ann@example.org"}))
    person, may_come = read_person(claims, settings)
    assert (may_come, person.email_trusted) == (False, False)
    assert comes(claims, home(everyone=True))


def test_claims_of_the_wrong_kind_are_as_good_as_none() -> None:
    claims = {"iss": "i", "sub": "s", "email": ["a@b.c"], "name": 7, "picture": {}, "email_verified": True}
    person, may_come = read_person(claims, home(domains=frozenset({"b.c", ""})))
    assert (person.email, person.display_name, may_come) == ("", "", False)


def test_the_discovery_documents_of_google_and_microsoft_are_understood() -> None:
    assert read_metadata(GOOGLE["discovery"], google()).token_endpoint == "https://oauth2.googleapis.com/token"
    shared = read_metadata(MICROSOFT["discovery_common"], microsoft())
    assert token_issuer(shared, MICROSOFT["work"], microsoft()) == MICROSOFT["work"]["iss"]
    for asked in (CONTOSO, "contoso.com"):
        one = read_metadata(MICROSOFT["discovery_tenant"], microsoft(asked))
        assert token_issuer(one, MICROSOFT["personal"], microsoft(asked)) == MICROSOFT["work"]["iss"]


def test_a_document_of_another_tenant_or_issuer_is_refused() -> None:
    another = "11111111-0000-41af-91ab-2d7cd011db47"
    with pytest.raises(NonsenseError, match="calls itself"):
        read_metadata(MICROSOFT["discovery_tenant"], microsoft(another))
    with pytest.raises(NonsenseError, match="calls itself"):
        read_metadata(MICROSOFT["discovery_common"], microsoft(CONTOSO))
    with pytest.raises(NonsenseError, match="calls itself"):
        read_metadata({**MICROSOFT["discovery_common"], "issuer": "https://evil.example/{tenantid}/v2.0"}, microsoft())
    with pytest.raises(NonsenseError, match="calls itself"):
        read_metadata({**GOOGLE["discovery"], "issuer": "https://accounts.google.com/"}, google())
    with pytest.raises(NonsenseError, match="calls itself"):
        read_metadata(MICROSOFT["discovery_common"], home())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"issuer": None}, "lacks issuer"),
        ({"issuer": 7}, "lacks issuer"),
        ({"token_endpoint": ""}, "lacks token_endpoint"),
        ({"token_endpoint": "http://accounts.google.com/"}, "token_endpoint is no https address"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "authorization_endpoint is no https address"),
        ({"jwks_uri": "https://[x"}, "jwks_uri is no https address"),
        ({"jwks_uri": "https://a\r\nb/"}, "jwks_uri is no https address"),
        ({"response_types_supported": ["token"]}, "code flow"),
        ({"code_challenge_methods_supported": ["plain"]}, "PKCE"),
        ({"id_token_signing_alg_values_supported": ["HS256", "none"]}, "can be checked"),
    ],
)
def test_a_document_that_will_not_do_says_why(change: dict[str, Any], words: str) -> None:
    with pytest.raises(NonsenseError, match=words):
        read_metadata({**GOOGLE["discovery"], **change}, google())
