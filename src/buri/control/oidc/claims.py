"""From a provider's claims to a person, and whether they may come uninvited.

An address counts only where the provider answers for it. Google does for gmail.com and for the domain of a Workspace
(`hd`); of other addresses it once checked who held them. Microsoft sends no `email_verified`, and whoever runs a tenant
of their own can write any address into it: it counts where the settings name the one tenant, where Microsoft says that
the domain's owner is checked (`xms_edov`), and for personal accounts.
"""

from __future__ import annotations

from collections.abc import Mapping

from buri.control.domain.signin import Claimed
from buri.control.oidc.settings import MICROSOFT_HOST, ProviderSettings

PERSONAL_TENANT = "9188040d-6c67-4b5b-b112-36a304b66dad"
_SHARED = ("common", "organizations")


def read_person(claims: Mapping[str, object], settings: ProviderSettings) -> tuple[Claimed, bool]:
    """The person of checked claims, and whether the settings let them come."""
    email = _text(claims, "email")
    username = _text(claims, "preferred_username")
    if settings.kind == "microsoft" and not email and "@" in username and "#" not in username:
        email = username
    email = email.lower()
    owned, holds = _vouched(claims, email, settings)
    person = Claimed(
        provider=settings.name,
        label=settings.label,
        issuer=_text(claims, "iss"),
        subject=_text(claims, "sub"),
        email=email,
        email_trusted=holds,
        username=username,
        display_name=_text(claims, "name"),
        picture=_text(claims, "picture"),
    )
    allowed = settings.allowed
    tenant = _text(claims, "tid").lower() if settings.kind == "microsoft" else ""
    may_come = (
        allowed.everyone
        or bool(tenant and tenant in allowed.tenants)
        or (holds and email in allowed.users)
        or (owned and email.rpartition("@")[2] in allowed.domains)
    )
    return person, may_come


def _vouched(claims: Mapping[str, object], email: str, settings: ProviderSettings) -> tuple[bool, bool]:
    """Whether the address' domain answers for this account, and whether the account holds the address."""
    domain = email.rpartition("@")[2]
    if "@" not in email:
        return False, False
    verified = _true(claims.get("email_verified"))
    match settings.kind:
        case "google":
            owned = verified and domain in ("gmail.com", _text(claims, "hd").lower())
            return owned, verified
        case "microsoft":
            asked = settings.issuer.removeprefix(f"{MICROSOFT_HOST}/").partition("/")[0]
            own_tenant = asked not in (*_SHARED, "consumers", PERSONAL_TENANT)
            personal = _text(claims, "tid").lower() == PERSONAL_TENANT
            holds = own_tenant or personal or _true(claims.get("xms_edov"))
            return holds, holds
        case _:
            return verified, verified


def _text(claims: Mapping[str, object], name: str) -> str:
    value = claims.get(name)
    return value if isinstance(value, str) else ""


def _true(value: object) -> bool:
    """Some providers write their booleans as text, Microsoft as a number."""
    return value is True or value == 1 or (isinstance(value, str) and value.lower() in ("true", "1"))
