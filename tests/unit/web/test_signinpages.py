"""The pages: sign in, look at the machine, click; and everything a stranger may try on the way."""

from __future__ import annotations

import asyncio
import urllib.parse

import pytest

from buri.control.people import INVITE_LIFETIME_S, MAX_ATTEMPTS_OF_A_SOURCE, MAX_ATTEMPTS_ON_A_NAME, SESSION_LIFETIME_S
from buri.testing.websites import PASSWORD, Site, in_loop, owner, sign_in, waiting
from buri.wire.tailcfg.node import Hostinfo

# ---- the story ------------------------------------------------------------------------------------------------------


@in_loop
async def test_the_owner_signs_in_by_a_link_and_lets_a_machine_join_by_a_click() -> None:
    site = Site()
    browser = await owner(site)
    path, follow_up = await waiting(site.world.machine())
    page = await browser.open(path)
    assert "box" in page.text
    assert site.world.admin.snapshot.user_named("alice") is not None
    page = await browser.send(page, "/register", {"decision": "join"})
    assert "box has joined" in page.text
    assert (await follow_up).login.login_name == "alice"
    node = site.world.admin.node("box")
    user = site.world.admin.snapshot.user_named("alice")
    assert user is not None
    assert (node.user_id, user.role) == (user.id, "owner")
    assert "has joined" in (await browser.open(path)).text  # a reload
    home = await browser.open("/")
    assert node.ipv4 in home.text


@in_loop
async def test_whoever_is_not_signed_in_sees_the_machine_and_signs_in_on_its_page() -> None:
    site = Site()
    await owner(site)
    machine = site.world.machine()
    path, follow_up = await waiting(machine)
    phone = site.browser()
    page = await phone.open(path)
    assert (page.status, page.path) == (200, path)
    assert machine.machine.short() in page.text
    with pytest.raises(LookupError):
        page.form("/register")
    page = await sign_in(phone, page)
    assert page.path == path
    await phone.send(page, "/register", {"decision": "join"})
    assert (await follow_up).machine_authorized


@in_loop
async def test_a_machine_logs_in_again_on_the_same_page_and_stays_the_node_it_was() -> None:
    site = Site()
    browser = await owner(site)
    machine = site.world.machine()
    path, follow_up = await waiting(machine)
    await browser.send(await browser.open(path), "/register", {"decision": "join"})
    await follow_up
    before = site.world.admin.node("box")
    machine.new_key()
    path, follow_up = await waiting(machine)
    await browser.send(await browser.open(path), "/register", {"decision": "join"})
    await follow_up
    after = site.world.admin.node("box")
    assert (after.id, after.ipv4, after.key) == (before.id, before.ipv4, machine.key)


@in_loop
async def test_turned_away_a_machine_is_told_no_and_nothing_is_left() -> None:
    site = Site()
    browser = await owner(site)
    path, follow_up = await waiting(site.world.machine())
    page = await browser.send(await browser.open(path), "/register", {"decision": "refuse"})
    assert "Turned away" in page.text
    assert "refused the login" in (await follow_up).error
    assert not site.world.admin.snapshot.nodes
    assert (await browser.open(path)).status == 404


@in_loop
async def test_an_invited_person_chooses_a_password_once() -> None:
    site = Site()
    await owner(site)
    people = site.world.coordinator.people
    _, token = await people.invite("bob@example.com", role="admin")
    browser, other = site.browser(), site.browser()
    page = await browser.open(f"/welcome/{token}")
    stale = await other.open(f"/welcome/{token}")
    short = await browser.send(page, "/welcome", {"password": "short", "again": "short"})
    assert (short.status, "at least 10 characters" in short.text) == (400, True)
    unlike = await browser.send(short, "/welcome", {"password": PASSWORD, "again": "else"})
    assert "not the same" in unlike.text
    page = await browser.send(unlike, "/welcome", {"name": "boss@example.com", "password": PASSWORD, "again": PASSWORD})
    assert page.path == "/"
    user = site.world.admin.snapshot.user_named("bob@example.com")  # the name was not theirs to choose
    assert user is not None
    assert user.role == "admin"
    late = await other.send(stale, "/welcome", {"password": PASSWORD, "again": PASSWORD})
    assert (late.status, "link is over" in late.text) == (404, True)


@in_loop
async def test_a_new_password_signs_every_other_browser_out() -> None:
    site = Site()
    browser = await owner(site)
    _, token = await site.world.coordinator.people.password_link("alice")
    other = site.browser()
    page = await other.open(f"/welcome/{token}")
    await other.send(page, "/welcome", {"password": "another good one", "again": "another good one"})
    assert "Your machines" in (await other.open("/")).text
    assert "Your machines" not in (await browser.open("/")).text
    page = await sign_in(browser, await browser.open("/login"))
    assert "name or the password is wrong" in page.text


# ---- time, restarts, tabs -------------------------------------------------------------------------------------------


@in_loop
async def test_a_session_outlives_a_restart_and_ends_in_time() -> None:
    site = Site()
    browser = await owner(site)
    site.restart()
    assert "Your machines" in (await browser.open("/")).text
    site.world.clock.advance(SESSION_LIFETIME_S + 1)
    assert "Your machines" not in (await browser.open("/")).text


@in_loop
async def test_a_page_from_before_a_restart_joins_the_machine_once_it_has_asked_again() -> None:
    site = Site()
    browser = await owner(site)
    machine = site.world.machine()
    url = (await machine.register()).auth_url
    path = urllib.parse.urlsplit(url).path
    page = await browser.open(path)
    site.restart()
    lost = await browser.send(page, "/register", {"decision": "join"})
    assert (lost.status, "load this page again" in lost.text) == (404, True)
    follow_up = asyncio.ensure_future(machine.register(followup=url))
    await asyncio.sleep(0)
    await browser.send(await browser.click(lost, "Look again"), "/register", {"decision": "join"})
    assert (await follow_up).machine_authorized
    assert len(site.world.admin.snapshot.nodes) == 1


@in_loop
async def test_two_tabs_and_two_clicks_make_one_node() -> None:
    site = Site()
    browser = await owner(site)
    path, follow_up = await waiting(site.world.machine())
    first, second = await browser.open(path), await browser.open(path)
    site.world.journal.held = True
    clicks = [asyncio.ensure_future(browser.send(page, "/register", {"decision": "join"})) for page in (first, second)]
    while not (site.world.coordinator.ledger.head.nodes and any(click.done() for click in clicks)):
        await asyncio.sleep(0)
    site.world.journal.held = False
    site.world.journal.release()
    pages = await asyncio.gather(*clicks)
    assert sorted(page.status for page in pages) == [200, 409]
    assert (await follow_up).machine_authorized
    assert len(site.world.admin.snapshot.nodes) == 1


@in_loop
async def test_a_tab_opened_before_another_one_signed_in_still_signs_in() -> None:
    site = Site()
    await owner(site)
    browser = site.browser()
    first, second = await browser.open("/login"), await browser.open("/login")
    await sign_in(browser, second)
    assert (await sign_in(browser, first)).path == "/"
    assert sum(1 for _ in site.world.admin.snapshot.credentials.sessions) == 2  # the owner's, and one of this browser


# ---- attacks --------------------------------------------------------------------------------------------------------


@in_loop
async def test_a_form_from_elsewhere_does_nothing() -> None:
    site = Site()
    browser = await owner(site)
    path, _ = await waiting(site.world.machine())
    page = await browser.open(path)
    form = page.form("/register")
    thief = site.browser()
    await sign_in(thief, await thief.open("/login"))
    stolen = (await thief.open(path)).form("/register").fields["csrf"]
    for fields, headers in (
        ({"decision": "join"}, {}),
        ({**form.fields, "csrf": "", "decision": "join"}, {}),
        ({**form.fields, "csrf": stolen, "decision": "join"}, {}),
        ({**form.fields, "decision": "join"}, {"Origin": "https://evil.example"}),
        ({**form.fields, "decision": "join"}, {"Origin": "null"}),
        ({**form.fields, "decision": "join"}, {"Sec-Fetch-Site": "cross-site"}),
    ):
        answer = await browser.client.post(path, data=fields, headers=headers)
        assert answer.status_code == 403
    answer = await browser.client.post(path, json={**form.fields, "decision": "join"})
    assert answer.status_code == 403
    assert not site.world.admin.snapshot.nodes
    assert (await browser.client.post("/logout", data={})).status_code == 403
    assert "Your machines" in (await browser.open("/")).text


@in_loop
async def test_nobody_joins_a_machine_without_signing_in() -> None:
    site = Site()
    await owner(site)
    path, _ = await waiting(site.world.machine())
    stranger = site.browser()
    answer = await stranger.client.post(path, data={"decision": "join"})
    assert b'name="password"' in answer.content
    assert not site.world.admin.snapshot.nodes


@pytest.mark.parametrize(
    "target",
    ["https://evil.example/", "//evil.example", "/\\evil.example", "\\\\evil.example", "javascript:alert(1)", "/a\nb"],
)
def test_after_signing_in_nobody_is_sent_elsewhere(target: str) -> None:
    @in_loop
    async def check() -> None:
        site = Site()
        browser = await owner(site)
        query = urllib.parse.urlencode({"next": target})
        answer = await browser.client.get(f"/login?{query}")
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        stranger = site.browser()
        page = await stranger.open(f"/login?{query}")
        assert page.form("/login").fields["next"] == "/"
        fields = {"name": "alice", "password": PASSWORD, "next": target}
        answer = await stranger.client.post("/login", data={**page.form("/login").fields, **fields})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")

    check()


@in_loop
async def test_guessing_passwords_is_slow() -> None:
    site = Site()
    await owner(site)
    guesser = site.browser()
    page = await guesser.open("/login")
    for _ in range(MAX_ATTEMPTS_OF_A_SOURCE):
        page = await sign_in(guesser, page, password="wrong wrong wrong")
        assert (page.status, "name or the password is wrong" in page.text) == (400, True)
    page = await sign_in(guesser, page)
    assert (page.status, "too many attempts" in page.text) == (429, True)
    friend = site.browser(source="198.51.100.3")
    assert (await sign_in(friend, await friend.open("/login"))).path == "/"
    site.world.clock.advance(301)
    assert (await sign_in(guesser, await guesser.open("/login"))).path == "/"


@in_loop
async def test_those_who_guess_a_name_from_many_places_do_not_lock_its_owner_out() -> None:
    site = Site()
    await owner(site)
    at_home = site.browser(source="203.0.113.1")
    await sign_in(at_home, await at_home.open("/login"))
    for number in range(MAX_ATTEMPTS_ON_A_NAME + 1):
        guesser = site.browser(source=f"198.51.100.{number}")
        page = await sign_in(guesser, await guesser.open("/login"), password="wrong wrong wrong")
    assert (page.status, "too many attempts" in page.text) == (429, True)
    again = site.browser(source="203.0.113.1")
    assert (await sign_in(again, await again.open("/login"))).path == "/"


@in_loop
async def test_a_click_that_comes_too_late_says_so() -> None:
    site = Site()
    browser = await owner(site)
    path, follow_up = await waiting(site.world.machine())
    page = await browser.open(path)
    user = site.world.admin.snapshot.user_named("alice")
    assert user is not None
    site.world.journal.held = True
    joining = asyncio.ensure_future(site.port.admit(path.rpartition("/")[2], user))
    await asyncio.sleep(0)
    late = await browser.send(page, "/register", {"decision": "refuse"})
    assert (late.status, "unknown or over" in late.text) == (409, True)
    site.world.journal.held = False
    site.world.journal.release()
    await joining
    assert (await follow_up).machine_authorized


@in_loop
async def test_unknown_names_and_wrong_passwords_are_not_told_apart() -> None:
    site = Site()
    await owner(site)
    browser = site.browser()
    page = await browser.open("/login")
    said = [(await sign_in(browser, page, name, "wrong wrong wrong")).text for name in ("alice", "mallory")]
    assert said[0] == said[1]


@in_loop
async def test_what_a_machine_says_of_itself_stays_text() -> None:
    site = Site()
    machine = site.world.machine()
    machine.hostinfo = Hostinfo(os="<i>linux", hostname="<script>alert(1)</script>\"'>", os_version="{{7*7}}")
    path, _ = await waiting(machine)
    for browser in (site.browser(), await owner(site)):
        page = await browser.open(path)
        assert "<script>alert(1)</script>" in page.text
        assert "{{7*7}}" in page.text
        assert not page.tags & {"script", "i"}
    gone = await browser.open("/register/%3Ci%3E")
    assert (gone.status, gone.tags & {"i"}) == (404, set())


@in_loop
async def test_every_page_forbids_frames_scripts_of_others_and_caches() -> None:
    site = Site()
    browser = site.browser()
    for path in ("/", "/login", "/welcome/x", "/register/x", "/nowhere"):
        headers = (await browser.open(path)).response.headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "unsafe-inline" not in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["x-content-type-options"] == "nosniff"


@in_loop
async def test_cookies_of_an_https_server_cannot_be_planted_nor_read() -> None:
    site = Site(url="https://vpn.example")
    token = await site.world.coordinator.people.owner_link("")
    browser = site.browser()
    page = await browser.open(f"/welcome/{token}")
    form = {**page.form("/welcome").fields, "name": "alice", "password": PASSWORD, "again": PASSWORD}
    answer = await browser.client.post(f"/welcome/{token}", data=form)
    (session,) = (cookie for cookie in answer.headers.get_list("set-cookie") if "session" in cookie)
    assert session.startswith("__Host-buri-session=")
    for word in ("HttpOnly", "Secure", "SameSite=lax", "Path=/"):
        assert word in session
    fixed = site.browser()
    fixed.client.cookies.set("buri-session", "planted")
    assert (await fixed.open("/login")).status == 200


@in_loop
async def test_signing_in_gives_a_new_session_and_signing_out_ends_it() -> None:
    site = Site()
    browser = await owner(site)
    before = browser.client.cookies["buri-session"]
    page = await sign_in(browser, await browser.open("/login?again=1"))
    after = browser.client.cookies["buri-session"]
    assert before != after
    people = site.world.coordinator.people
    assert people.user_of_session(before) is None
    assert people.user_of_session(after) is not None
    form = next(form for form in page.forms if form.action == "/logout")
    await browser.client.post("/logout", data=form.fields)
    assert people.user_of_session(after) is None


# ---- links ----------------------------------------------------------------------------------------------------------


@in_loop
async def test_links_end_and_looking_at_one_does_not_spend_it() -> None:
    site = Site()
    await owner(site)
    _, token = await site.world.coordinator.people.invite("bob")
    for _ in range(3):
        assert (await site.browser().open(f"/welcome/{token}")).status == 200
    site.world.clock.advance(INVITE_LIFETIME_S + 1)
    assert (await site.browser().open(f"/welcome/{token}")).status == 404
    for nonsense in ("x", "%00", "a" * 4000, "%F0%9F%90%9F"):
        assert (await site.browser().open(f"/welcome/{nonsense}")).status == 404


@in_loop
async def test_the_owners_link_is_kept_until_an_owner_can_sign_in() -> None:
    site = Site()
    people = site.world.coordinator.people
    first = await people.owner_link("")
    assert "owner's link is in the server's terminal" in (await site.browser().open("/login")).text
    assert await people.owner_link(first) == first
    second = await people.owner_link("another")
    assert people.link(first) is None
    await site.world.admin.create_user("root")  # the first pre-auth key's person: the link becomes theirs
    third = await people.owner_link(second)
    assert third != second
    browser = site.browser()
    page = await browser.open(f"/welcome/{third}")
    assert page.form("/welcome").fields["name"] == "root"
    await browser.send(page, "/welcome", {"name": "carol", "password": PASSWORD, "again": PASSWORD})
    assert [(user.name, user.role) for user in site.world.admin.snapshot.users.values()] == [("carol", "owner")]
    assert await people.owner_link(third) == ""
    assert "owner's link" not in (await site.browser().open("/login")).text


# ---- languages ------------------------------------------------------------------------------------------------------


@in_loop
async def test_pages_speak_the_browsers_language_and_the_chosen_one() -> None:
    site = Site()
    browser = site.browser(language="ja-JP,en;q=0.5")
    page = await browser.open("/login?next=/register/abc")
    assert "サインイン" in page.text
    assert 'lang="ja"' in page.source
    page = await browser.click(page, "English")
    assert (page.path, "Sign in" in page.text) == ("/login", True)
    assert page.form("/login").fields["next"] == "/register/abc"
    assert "Sign in" in (await browser.open("/login")).text
