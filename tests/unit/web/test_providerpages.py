"""Signing in through providers: the way there and back, who may come, and the tricks that stop at the door."""

from __future__ import annotations

import urllib.parse

import httpx2

from buri.control.signin import FLOW_LIFETIME_S
from buri.testing.controlworld import World
from buri.testing.websites import FakeProvider, Site, in_loop, owner, sign_in, waiting


def flow_cookie(answer: httpx2.Response) -> str:
    """The cookie that keeps a sign-in on its way."""
    (cookie,) = (one for one in answer.headers.get_list("set-cookie") if one.startswith("buri-flow-"))
    return cookie.partition(";")[0]


@in_loop
async def test_a_person_signs_in_at_a_provider_and_lets_a_machine_join() -> None:
    site = Site(FakeProvider(World(), domains=frozenset({"example.com"})))
    path, follow_up = await waiting(site.world.machine())
    browser = site.browser()
    page = await browser.click(await browser.open(path), "Continue with IDP")
    assert page.path == path
    await browser.send(page, "/register", {"decision": "join"})
    assert (await follow_up).login.login_name == "alice@example.com"
    (user,) = site.world.admin.snapshot.users.values()
    assert (user.role, user.email) == ("member", "alice@example.com")  # the first to come is not the owner
    assert not [name for name in browser.client.cookies if name.startswith("buri-flow")]


@in_loop
async def test_two_providers_and_one_address_are_two_people() -> None:
    world = World()
    one, two = (FakeProvider(world, name, everyone=True) for name in ("one", "two"))
    site = Site(one, two)
    for name in ("ONE", "TWO", "ONE", "TWO"):
        browser = site.browser()
        await browser.click(await browser.open("/login"), f"Continue with {name}")
    names = sorted(user.name for user in site.world.admin.snapshot.users.values())
    assert names == ["alice-two", "alice@example.com"]


@in_loop
async def test_a_sign_in_through_a_provider_outlives_a_restart_in_its_middle() -> None:
    fake = FakeProvider(World(), everyone=True)
    site = Site(fake)
    browser = site.browser()
    answer = await browser.client.get("/login/with/idp?next=/register/abc")
    back = fake.authorize(answer.headers["location"])
    site.restart()
    answer = await browser.client.get(back)
    assert (answer.status_code, answer.headers["location"]) == (303, "/register/abc")


@in_loop
async def test_a_callback_serves_once_restarts_included() -> None:
    fake = FakeProvider(World(), everyone=True)
    site = Site(fake)
    browser = site.browser()
    answer = await browser.client.get("/login/with/idp")
    back = fake.authorize(answer.headers["location"])
    cookie = flow_cookie(answer)
    assert (await browser.client.get(back)).status_code == 303
    for _ in range(2):
        replay = await site.browser().client.get(back, headers={"Cookie": cookie})
        assert (replay.status_code, "finished already" in replay.text) == (400, True)
        fake._codes["code-0"] = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(answer.headers["location"]).query))
        site.restart()
    assert len(site.world.admin.snapshot.credentials.sessions) == 1


@in_loop
async def test_a_callback_of_another_browser_or_too_late_begins_nothing() -> None:
    fake = FakeProvider(World(), everyone=True)
    site = Site(fake)
    thief, victim = site.browser(), site.browser()
    answer = await thief.client.get("/login/with/idp")
    back = fake.authorize(answer.headers["location"])
    page = await victim.open(back)  # the thief's own account, sent to the victim as a link
    assert (page.status, "begun in another browser" in page.text) == (400, True)
    site.world.clock.advance(FLOW_LIFETIME_S + 1)
    page = await thief.open(back)
    assert "took too long" in page.text
    bare = await thief.open("/login/callback/idp")
    assert bare.status == 400
    assert not site.world.admin.snapshot.users


@in_loop
async def test_the_answer_of_one_provider_is_not_taken_for_anothers() -> None:
    world = World()
    honest, evil = FakeProvider(world, "honest", everyone=True), FakeProvider(world, "evil", everyone=True)
    site = Site(honest, evil)
    browser = site.browser()
    answer = await browser.client.get("/login/with/honest")
    cookie = flow_cookie(answer)
    back = honest.authorize(answer.headers["location"]).replace("/callback/honest", "/callback/evil")
    mixed = await site.browser().client.get(back, headers={"Cookie": cookie})
    assert (mixed.status_code, "another provider" in mixed.text) == (400, True)
    answer = await browser.client.get("/login/with/honest")
    told = await browser.client.get(honest.authorize(answer.headers["location"]) + "&iss=https://evil.example")
    assert "another provider" in told.text
    assert not [url for url in evil.asked if url.endswith("/token")]
    assert not site.world.admin.snapshot.users


@in_loop
async def test_a_changed_cookie_is_nobodys() -> None:
    fake = FakeProvider(World(), everyone=True)
    site = Site(fake)
    browser = site.browser()
    answer = await browser.client.get("/login/with/idp")
    back = fake.authorize(answer.headers["location"])
    name, _, value = flow_cookie(answer).partition("=")
    for forged in (
        value[:-1] + ("0" if value[-1] != "0" else "1"),
        "A" + value[1:],
        "",
        "x.y",
        value.partition(".")[0],
    ):
        answer = await site.browser().client.get(back, headers={"Cookie": f"{name}={forged}"})
        assert answer.status_code == 400
    assert not site.world.admin.snapshot.users


@in_loop
async def test_whom_the_settings_do_not_name_is_refused_and_leaves_nothing() -> None:
    site = Site(FakeProvider(World(), domains=frozenset({"other.example"})))
    browser = site.browser()
    page = await browser.click(await browser.open("/login"), "Continue with IDP")
    assert (page.status, "alice@example.com may not sign in here" in page.text) == (400, True)
    snapshot = site.world.admin.snapshot
    assert (snapshot.users, snapshot.credentials.identities, snapshot.credentials.sessions) == ({}, {}, {})


@in_loop
async def test_an_invitation_opens_the_door_for_a_provider_too() -> None:
    site = Site(FakeProvider(World()))
    await owner(site, "carol")
    _, token = await site.world.coordinator.people.invite("bob@example.com")
    browser = site.browser()
    page = await browser.click(await browser.open(f"/welcome/{token}"), "Continue with IDP")
    assert page.path == "/"
    again = site.browser()
    assert (await again.click(await again.open("/login"), "Continue with IDP")).path == "/"
    assert sorted(user.name for user in site.world.admin.snapshot.users.values()) == ["bob@example.com", "carol"]
    assert (await browser.open(f"/welcome/{token}")).status == 404
    _, second = await site.world.coordinator.people.invite("dora")
    page = await again.click(await again.open(f"/welcome/{second}"), "Continue with IDP")
    assert "belongs to another person" in page.text


@in_loop
async def test_a_provider_that_is_down_is_one_sentence_and_others_go_on() -> None:
    fake = FakeProvider(World(), everyone=True)
    site = Site(fake)
    await owner(site, "carol")
    fake.down = "no answer within 10 s"
    browser = site.browser()
    page = await browser.click(await browser.open("/login"), "Continue with IDP")
    assert (page.status, "IDP cannot be reached at this moment (no answer within 10 s)" in page.text) == (502, True)
    assert (await sign_in(browser, page, "carol")).path == "/"
    fake.down = ""
    site.world.clock.advance(10)
    other = site.browser()
    assert (await other.click(await other.open("/login"), "Continue with IDP")).path == "/"


@in_loop
async def test_a_refusal_at_the_provider_is_told_in_its_words_as_text() -> None:
    fake = FakeProvider(World(), everyone=True)
    site = Site(fake)
    browser = site.browser()
    answer = await browser.client.get("/login/with/idp?next=/register/abc")
    query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(answer.headers["location"]).query))
    told = {"error": "access_denied", "error_description": "<b>no</b>\n" * 100, "state": query["state"]}
    page = await browser.open(f"/login/callback/idp?{urllib.parse.urlencode(told)}")
    assert "IDP did not sign you in: <b>no</b>" in page.text
    assert "b" not in page.tags
    assert page.form("/login").fields["next"] == "/register/abc"


@in_loop
async def test_an_unknown_provider_is_said() -> None:
    browser = Site().browser()
    assert "no such provider" in (await browser.open("/login/with/nobody")).text
    assert "no such provider" in (await browser.open("/login/callback/nobody?state=x&code=y")).text
