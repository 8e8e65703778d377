"""One OpenID provider: its description and keys kept for a while, sign-ins begun and finished (code flow with PKCE)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import urllib.parse
from collections.abc import Mapping

from joserfc.jwk import Key

from buri.control.clock import Clock
from buri.control.domain.signin import Claimed, clean
from buri.control.oidc.claims import read_person
from buri.control.oidc.fetcher import Answer, Fetcher, SilentError
from buri.control.oidc.idtoken import TokenError, UnknownKeyError, read_keys, read_token
from buri.control.oidc.metadata import TENANT_PLACE, Metadata, NonsenseError, discovery_url, read_metadata
from buri.control.oidc.settings import ProviderSettings
from buri.control.signinproblem import SignInProblem

METADATA_LIFETIME_S = 3600.0
KEYS_LIFETIME_S = 3600.0
KEYS_PAUSE_S = 30.0
SILENCE_S = 5.0
_log = logging.getLogger(__name__)


class Provider:
    """Raises SignInProblem alone: every failure of a provider is one sentence for the person and a line in the log."""

    def __init__(self, settings: ProviderSettings, fetcher: Fetcher, clock: Clock) -> None:
        self.settings = settings
        self._fetcher = fetcher
        self._clock = clock
        self._metadata: tuple[float, Metadata] | None = None
        self._keys: tuple[float, list[Key]] | None = None
        self._failed: tuple[float, SignInProblem] | None = None
        self._turn = asyncio.Lock()

    async def authorization_url(self, *, redirect_uri: str, state: str, nonce: str, verifier: str) -> str:
        """Where the browser shall go."""
        metadata = await self._described()
        digest = hashlib.sha256(verifier.encode()).digest()
        query = {
            "response_type": "code",
            "client_id": self.settings.client_id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(self.settings.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": base64.urlsafe_b64encode(digest).decode().rstrip("="),
            "code_challenge_method": "S256",
        }
        if self.settings.kind in ("google", "microsoft"):
            query["prompt"] = "select_account"  # many have several accounts there, and one of them is meant
        join = "&" if "?" in metadata.authorization_endpoint else "?"
        return f"{metadata.authorization_endpoint}{join}{urllib.parse.urlencode(query)}"

    async def finish(
        self, query: Mapping[str, str], *, redirect_uri: str, nonce: str, verifier: str, now_s: float
    ) -> tuple[Claimed, bool]:
        """The person that the provider sent back with `query`, and whether the settings let them come uninvited."""
        metadata = await self._described()
        told = query.get("iss", "")
        if TENANT_PLACE not in metadata.issuer and (told or metadata.says_issuer) and told != metadata.issuer:
            raise SignInProblem("mixed-up")
        if refusal := query.get("error", ""):
            reason = clean(query.get("error_description", "")).rstrip(".") or clean(refusal)
            raise SignInProblem("denied", provider=self.settings.label, reason=reason)
        if not (code := query.get("code", "")):
            raise self._nonsense("it sent no code back")
        tokens = await self._tokens(metadata, code, redirect_uri, verifier)
        text = tokens.get("id_token")
        if not isinstance(text, str):
            raise self._nonsense("it sent no identity")
        claims = await self._checked(text, metadata, nonce, now_s)
        claims = await self._completed(claims, metadata, tokens.get("access_token"))
        return read_person(claims, self.settings)

    async def _tokens(self, metadata: Metadata, code: str, redirect_uri: str, verifier: str) -> dict[str, object]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
        }
        name, secret = self.settings.client_id, self.settings.client_secret
        basic = None
        if secret and not metadata.secret_in_body:
            quote = urllib.parse.quote_plus  # RFC 6749, 2.3.1: form-encoded first
            basic = (quote(name), quote(secret))
        else:
            form["client_id"] = name
            if secret:
                form["client_secret"] = secret
        answer = await self._asked(metadata.token_endpoint, form=form, basic=basic)
        if answer.status == 200:
            return answer.body
        error = answer.body.get("error")
        word = clean(error) if isinstance(error, str) else f"status {answer.status}"
        if word == "invalid_grant":
            raise SignInProblem("denied", provider=self.settings.label, reason="the code it sent was no longer good")
        raise self._nonsense(f"it refuses our request: {word}")

    async def _checked(self, text: str, metadata: Metadata, nonce: str, now_s: float) -> dict[str, object]:
        keys = await self._shown_keys(metadata, KEYS_LIFETIME_S)
        try:
            try:
                return read_token(text, keys, metadata, self.settings, nonce=nonce, now_s=now_s)
            except UnknownKeyError:  # it may have begun to sign with a new one
                keys = await self._shown_keys(metadata, KEYS_PAUSE_S)
                return read_token(text, keys, metadata, self.settings, nonce=nonce, now_s=now_s)
        except TokenError as error:
            _log.warning("An identity from %s does not hold: %s", self.settings.label, error)
            raise SignInProblem("bad-token", provider=self.settings.label, reason=str(error)) from error

    async def _completed(self, claims: dict[str, object], metadata: Metadata, token: object) -> dict[str, object]:
        """Many providers tell e-mail and name only when asked with the access token; Microsoft tells no more then."""
        if (
            self.settings.kind == "microsoft"
            or "email" in claims
            or not metadata.userinfo_endpoint
            or not isinstance(token, str)
            or not token.isascii()
        ):
            return claims
        answer = await self._asked(metadata.userinfo_endpoint, bearer=token)
        if answer.status != 200:
            raise self._nonsense(f"it answers {answer.status} when asked about the person")
        if answer.body.get("sub") != claims["sub"]:
            raise self._nonsense("it spoke of another person when asked")
        return {**answer.body, **claims}

    async def _described(self) -> Metadata:
        """Its description: fetched once an hour; an old one is better than none.

        Whoever waited while it failed hears of that failure, for each would else wait as long again.
        """
        async with self._turn:
            now_s = self._clock.wall_s()
            if self._metadata is not None and abs(now_s - self._metadata[0]) < METADATA_LIFETIME_S:
                return self._metadata[1]
            if self._failed is not None and abs(now_s - self._failed[0]) < SILENCE_S:
                raise SignInProblem(self._failed[1].code, **self._failed[1].details)
            try:
                answer = await self._asked(discovery_url(self.settings))
                if answer.status != 200:
                    raise self._nonsense(f"it answers {answer.status} when asked to describe itself")
                try:
                    metadata = read_metadata(answer.body, self.settings)
                except NonsenseError as error:
                    raise self._nonsense(str(error)) from error
            except SignInProblem as problem:
                if self._metadata is None:
                    self._failed = (self._clock.wall_s(), problem)
                    raise
                return self._metadata[1]
            self._metadata, self._failed = (now_s, metadata), None
            return metadata

    async def _shown_keys(self, metadata: Metadata, lifetime_s: float) -> list[Key]:
        async with self._turn:
            now_s = self._clock.wall_s()
            if self._keys is not None and abs(now_s - self._keys[0]) < lifetime_s:
                return self._keys[1]
            answer = await self._asked(metadata.jwks_uri)
            keys = read_keys(answer.body) if answer.status == 200 else []
            if not keys:
                raise self._nonsense("it shows no keys")
            self._keys = (now_s, keys)
            return keys

    async def _asked(
        self, url: str, *, form: Mapping[str, str] | None = None, basic: tuple[str, str] | None = None, bearer: str = ""
    ) -> Answer:
        try:
            if form is not None:
                return await self._fetcher.post(url, form, basic)
            return await self._fetcher.get(url, bearer)
        except SilentError as error:
            _log.warning("%s cannot be reached: %s", self.settings.label, error)
            raise SignInProblem("provider-down", provider=self.settings.label, reason=str(error)) from error
        except NonsenseError as error:
            raise self._nonsense(str(error)) from error

    def _nonsense(self, reason: str) -> SignInProblem:
        _log.warning("%s (%s): %s", self.settings.label, self.settings.issuer, reason)
        return SignInProblem("provider-nonsense", provider=self.settings.label, reason=reason)
