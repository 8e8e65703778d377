"""Sign-in end to end: the server's real pages, database and HTTP, and the real OpenID provider of npm."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from buri.control.coordinator import Coordinator
from buri.control.oidc.settings import Allowed
from buri.testing.browser import Browser, Page
from buri.testing.realprovider import real_providers, why_no_provider
from buri.testing.realsite import Box, Place
from buri.wire.tailcfg.register import RegisterResponse

pytestmark = [pytest.mark.slow]


@pytest.fixture(autouse=True)
def _provider() -> None:
    if reason := why_no_provider():
        pytest.skip(reason)


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
