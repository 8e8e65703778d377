"""A control server's pages over a `World`, and a provider that exists in memory, for tests without sockets."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import urllib.parse
from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import Any

import httpx2
from joserfc import jwt
from joserfc.jwk import RSAKey

from buri.control.oidc.fetcher import Answer, SilentError
from buri.control.oidc.provider import Provider
from buri.control.oidc.settings import Allowed, ProviderSettings
from buri.control.signin import SignIn
from buri.testing.browser import Browser, Page
from buri.testing.controlworld import Machine, World
from buri.web.app import make_app
from buri.wire.tailcfg.register import RegisterResponse

URL = "http://10.77.0.1:8080"
PASSWORD = "many words in a row"
_KEY = RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})


class FakeProvider:
    """An OpenID provider: `person` is who signs in there; members are bent by tests to make it lie."""

    def __init__(self, world: World, name: str = "idp", **allowed: Any) -> None:
        self.world = world
        self.settings = ProviderSettings(
            name=name,
            label=name.upper(),
            kind="oidc",
            issuer=f"https://{name}.example",
            client_id="buri",
            client_secret="s e cret",
            allowed=Allowed(**allowed),
        )
        self.key = _KEY
        self.person: dict[str, object] = {"sub": "1", "email": "alice@example.com", "email_verified": True}
        self.metadata: dict[str, object] = {
            "issuer": self.settings.issuer,
            "authorization_endpoint": f"{self.settings.issuer}/authorize",
            "token_endpoint": f"{self.settings.issuer}/token",
            "jwks_uri": f"{self.settings.issuer}/keys",
            "userinfo_endpoint": f"{self.settings.issuer}/me",
            "response_types_supported": ["code"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }
        self.claims: dict[str, object] = {}
        self.header: dict[str, object] = {"alg": "RS256", "kid": "one"}
        self.down = ""
        self.token_answer: Answer | None = None
        self.asked: list[str] = []
        self._codes: dict[str, dict[str, str]] = {}

    def authorize(self, url: str) -> str:
        """What the person's browser gets at the authorization endpoint: the address to go back to."""
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query))
        code = f"code-{len(self._codes)}"
        self._codes[code] = query
        back = {"code": code, "state": query["state"]}
        return f"{query['redirect_uri']}?{urllib.parse.urlencode(back)}"

    async def get(self, url: str, bearer: str = "") -> Answer:
        """Fetcher."""
        self._reached(url)
        path = urllib.parse.urlsplit(url).path
        if path == "/.well-known/openid-configuration":
            return Answer(200, self.metadata)
        if path == "/keys":
            return Answer(200, {"keys": [self.key.as_dict(private=False)]})
        assert (path, bearer) == ("/me", "access")
        return Answer(200, self.person)

    async def post(self, url: str, form: Mapping[str, str], basic: tuple[str, str] | None) -> Answer:
        """Fetcher."""
        self._reached(url)
        if self.token_answer is not None:
            return self.token_answer
        assert basic == ("buri", "s+e+cret")
        asked = self._codes.pop(form["code"], None)
        if asked is None:
            return Answer(400, {"error": "invalid_grant"})
        digest = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).decode().rstrip("=")
        assert (asked["code_challenge"], asked["code_challenge_method"]) == (digest, "S256")
        assert form["redirect_uri"] == asked["redirect_uri"]
        return Answer(200, {"id_token": self.token(asked["nonce"]), "access_token": "access"})

    def token(self, nonce: str) -> str:
        """An ID token for `person`, with `claims` put over what is right."""
        now_s = int(self.world.clock.wall_s())
        right = {
            "iss": self.settings.issuer,
            "aud": self.settings.client_id,
            "iat": now_s,
            "exp": now_s + 300,
            "nonce": nonce,
            **self.person,
        }
        claims = {name: value for name, value in {**right, **self.claims}.items() if value is not None}
        return jwt.encode(self.header, claims, self.key, algorithms=["RS256", "PS256", "none", "HS256"])

    def _reached(self, url: str) -> None:
        assert url.startswith(self.settings.issuer)
        self.asked.append(url)
        if self.down:
            raise SilentError(self.down)


class Site:
    """The pages of a world's server. `restart` makes the process anew on what was committed."""

    def __init__(self, *providers: FakeProvider, world: World | None = None, url: str = URL) -> None:
        self.world = world or (providers[0].world if providers else World())
        self.fakes = {fake.settings.name: fake for fake in providers}
        self.url = url
        self.port = self._port()

    def _port(self) -> SignIn:
        clock = self.world.clock
        return SignIn(
            self.world.coordinator,
            self.url,
            b"k" * 32,
            clock=clock,
            entropy=self.world.random.randbytes,
            providers=[Provider(fake.settings, fake, clock) for fake in self.fakes.values()],
        )

    def restart(self) -> None:
        """Forget what only memory held."""
        self.world.restart()
        self.port = self._port()

    def browser(self, *, language: str = "en", source: str = "192.0.2.7") -> Browser:
        """A new person's browser, which plays the provider's page by itself."""

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await make_app(self.port)(scope, receive, send)

        ours = httpx2.ASGITransport(app=app, raise_app_exceptions=True, client=(source, 4000))
        client = httpx2.AsyncClient(
            base_url=self.url,
            mounts={fake.settings.issuer: _Authorizing(fake) for fake in self.fakes.values()},
            transport=ours,
            headers={"Accept-Language": language},
        )
        return Browser(client)


class _Authorizing(httpx2.AsyncBaseTransport):
    def __init__(self, fake: FakeProvider) -> None:
        self._fake = fake

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(303, headers={"Location": self._fake.authorize(str(request.url))})


def in_loop(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Run a coroutine test."""

    @wraps(test)
    def run() -> None:
        asyncio.run(asyncio.wait_for(test(), 60))

    return run


async def owner(site: Site, name: str = "alice") -> Browser:
    """A browser on which the first owner has just chosen name and password."""
    token = await site.world.coordinator.people.owner_link("")
    browser = site.browser()
    page = await browser.open(f"/welcome/{token}")
    page = await browser.send(page, "/welcome", {"name": name, "password": PASSWORD, "again": PASSWORD})
    assert (page.status, page.path) == (200, "/"), page.text
    return browser


async def waiting(machine: Machine) -> tuple[str, asyncio.Task[RegisterResponse]]:
    """The path of a machine's login page, and its follow-up."""
    url = (await machine.register()).auth_url
    follow_up = asyncio.ensure_future(machine.register(followup=url))
    await asyncio.sleep(0)
    return urllib.parse.urlsplit(url).path, follow_up


async def sign_in(browser: Browser, page: Page, name: str = "alice", password: str = PASSWORD) -> Page:
    return await browser.send(page, "/login", {"name": name, "password": password})
