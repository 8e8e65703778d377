"""Sign-in end to end: the server's real pages, database and HTTP, and the real OpenID provider of npm."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from buri.control.clock import SystemClock
from buri.control.coordinator import Coordinator
from buri.control.noisefront.asgi import ASGIHandler
from buri.control.noisefront.listener import NoiseFront
from buri.control.noisefront.machineroutes import MachineRoutes
from buri.control.noisefront.pages import Pages
from buri.control.oidc.fetch import HTTPFetcher
from buri.control.oidc.provider import Provider
from buri.control.oidc.settings import Allowed, ProviderSettings
from buri.control.settings import Settings
from buri.control.signin import SignIn
from buri.core.addresses import AddrPort
from buri.core.keys import MachinePrivate, MachinePublic, NodePublic
from buri.testing.browser import Browser, Page
from buri.testing.controlworld import derp_map
from buri.testing.realprovider import SECRET, real_providers, why_no_provider
from buri.web.app import make_app
from buri.wire.tailcfg.node import Hostinfo
from buri.wire.tailcfg.register import RegisterRequest, RegisterResponse

pytestmark = [pytest.mark.slow]


@pytest.fixture(autouse=True)
def _provider() -> None:
    if reason := why_no_provider():
        pytest.skip(reason)


class Place:
    """Where a server runs: its directory, its port, and the providers it knows."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.providers: list[ProviderSettings] = []

    def callback(self, name: str) -> str:
        return f"{self.url}/login/callback/{name}"

    def add(self, name: str, issuer: str, allowed: Allowed) -> None:
        self.providers.append(ProviderSettings(name, name.upper(), "oidc", issuer, "buri", SECRET, allowed=allowed))

    @asynccontextmanager
    async def server(self) -> AsyncIterator[Coordinator]:
        """The server's process, as roles/server puts it together."""
        coordinator = await Coordinator.open(self.directory, Settings(url=self.url), derp_map(900))
        fetcher = HTTPFetcher()
        key = MachinePrivate.from_entropy(b"k" * 32)
        clock = SystemClock()
        port = SignIn(
            coordinator,
            self.url,
            key.raw,
            clock=clock,
            entropy=os.urandom,
            providers=[Provider(settings, fetcher, clock) for settings in self.providers],
        )
        pages = Pages(key.public(), self.url, tls=False)
        pages.extra = ASGIHandler(make_app(port)).handle
        front = NoiseFront(key, pages.handle, MachineRoutes(coordinator).handle)
        await front.listen_tcp(AddrPort.parse(f"127.0.0.1:{self.port}"))
        try:
            yield coordinator
        finally:
            await front.close()
            await fetcher.close()
            await coordinator.close()


class Box:
    """A machine that asks to join."""

    def __init__(self, name: str) -> None:
        self.machine = MachinePublic(os.urandom(32))
        self.key = NodePublic(os.urandom(32))
        self.hostinfo = Hostinfo(os="linux", hostname=name)

    async def ask(self, coordinator: Coordinator, followup: str = "") -> RegisterResponse:
        request = RegisterRequest(version=142, node_key=str(self.key), hostinfo=self.hostinfo, followup=followup)
        return await coordinator.register(self.machine, request)


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    async with httpx2.AsyncClient(timeout=30.0, limits=httpx2.Limits(max_keepalive_connections=0)) as client:
        yield Browser(client)


async def through_the_provider(person: Browser, page: Page, name: str) -> Page:
    """Fill in the provider's own pages: who they are, and that they agree."""
    page = await person.send(page, "", {"login": name, "password": "any"})
    return await person.send(page) if "/interaction/" in page.url else page


def run(main: Callable[[], Coroutine[object, object, None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 100))


def test_several_people_at_two_providers_let_their_machines_join_at_once(tmp_path: Path) -> None:
    place = Place(tmp_path)

    async def join(coordinator: Coordinator, provider: str, name: str, host: str) -> RegisterResponse:
        box = Box(host)
        url = (await box.ask(coordinator)).auth_url
        follow_up = asyncio.ensure_future(box.ask(coordinator, url))
        async with browser() as person:
            page = await person.click(await person.open(url), f"Continue with {provider}")
            page = await through_the_provider(person, page, name)
            assert page.url == url
            assert host in page.text
            page = await person.send(page, "/register", {"decision": "join"})
            assert f"{host} has joined" in page.text
        return await follow_up

    async def main() -> None:
        with real_providers(place.callback("one"), place.callback("two")) as (issuers, _):
            for name, issuer in zip(("one", "two"), issuers, strict=True):
                place.add(name, issuer, Allowed(domains=frozenset({"example.com"})))
            async with place.server() as coordinator:
                answers = await asyncio.gather(
                    join(coordinator, "ONE", "ann@example.com", "a"),
                    join(coordinator, "TWO", "bob@example.com", "b"),
                    join(coordinator, "ONE", "bob@example.com", "c"),
                    join(coordinator, "TWO", "bob@example.com", "d"),
                )
                assert all(answer.machine_authorized for answer in answers)
                snapshot = coordinator.ledger.snapshot
                owners = {node.name: snapshot.users[node.user_id or 0].id for node in snapshot.nodes.values()}
                assert owners["b"] == owners["d"]
                assert len(set(owners.values())) == len(snapshot.users) == 3
                assert sorted(user.email for user in snapshot.users.values()) == [
                    "ann@example.com",
                    "bob@example.com",
                    "bob@example.com",
                ]
                assert len(snapshot.credentials.identities) == 3

    run(main)


def test_a_login_begun_before_a_restart_of_the_server_ends_after_it(tmp_path: Path) -> None:
    place = Place(tmp_path)

    async def main() -> None:
        with real_providers(place.callback("one")) as (issuers, _):
            place.add("one", issuers[0], Allowed(everyone=True))
            box = Box("box")
            async with browser() as person:
                async with place.server() as coordinator:
                    url = (await box.ask(coordinator)).auth_url
                    page = await person.click(await person.open(url), "Continue with ONE")
                async with place.server() as coordinator:
                    follow_up = asyncio.ensure_future(box.ask(coordinator, url))
                    page = await through_the_provider(person, page, "ann@example.com")
                    await person.send(page, "/register", {"decision": "join"})
                    assert (await follow_up).login.login_name == "ann@example.com"
                async with place.server() as coordinator:
                    assert "box" in (await person.open(f"{place.url}/")).text
                    assert [node.name for node in coordinator.ledger.snapshot.nodes.values()] == ["box"]

    run(main)


def test_a_refused_domain_an_unproven_address_and_a_refusal_there_leave_nothing(tmp_path: Path) -> None:
    place = Place(tmp_path)

    async def main() -> None:
        with real_providers(place.callback("one")) as (issuers, _):
            place.add("one", issuers[0], Allowed(domains=frozenset({"example.com"})))
            async with place.server() as coordinator:
                for name in ("eve@evil.example", "unverified@example.com", "nobody"):
                    async with browser() as person:
                        page = await person.click(await person.open(f"{place.url}/login"), "Continue with ONE")
                        page = await through_the_provider(person, page, name)
                        assert (page.status, f"{name} may not sign in here" in page.text) == (400, True)
                async with browser() as person:
                    page = await person.click(await person.open(f"{place.url}/login"), "Continue with ONE")
                    page = await person.click(page, "Cancel")
                    assert "ONE did not sign you in" in page.text
                snapshot = coordinator.ledger.snapshot
                assert (snapshot.users, snapshot.credentials.identities, snapshot.credentials.sessions) == ({}, {}, {})

    run(main)


def test_a_provider_that_dies_in_the_middle_is_one_sentence(tmp_path: Path) -> None:
    place = Place(tmp_path)

    async def main() -> None:
        with real_providers(place.callback("one")) as (issuers, process):
            place.add("one", issuers[0], Allowed(everyone=True))
            async with place.server(), browser() as person:
                answer = await person.client.get(f"{place.url}/login/with/one")
                page = await person.open(answer.headers["location"])
                page = await person.send(page, "", {"login": "ann", "password": "any"})
                consent = page.form()
                answer = await person.client.post(page.response.url.join(consent.action), data=consent.fields)
                while not (back := answer.headers["location"]).startswith(place.url):
                    answer = await person.client.get(answer.url.join(back))
                process.kill()
                process.wait()
                page = await person.open(back)
                assert (page.status, "ONE cannot be reached at this moment" in page.text) == (502, True)

    run(main)
