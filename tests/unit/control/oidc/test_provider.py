"""A provider over time: what is kept, what is asked again, and each way it may fail, in one sentence."""

from __future__ import annotations

import asyncio
import urllib.parse
from typing import Any

import pytest
from joserfc.jwk import RSAKey

from buri.control.domain.signin import Claimed
from buri.control.oidc.fetcher import Answer
from buri.control.oidc.provider import KEYS_PAUSE_S, METADATA_LIFETIME_S, SILENCE_S, Provider
from buri.control.signinproblem import SignInProblem
from buri.testing.controlworld import World
from buri.testing.websites import FakeProvider, in_loop

BACK = "https://vpn.example/login/callback/idp"


class Trip:
    """Goes to the provider and back."""

    def __init__(self) -> None:
        self.fake = FakeProvider(World(), everyone=True)
        self.provider = Provider(self.fake.settings, self.fake, self.fake.world.clock)

    async def depart(self) -> str:
        return await self.provider.authorization_url(redirect_uri=BACK, state="s", nonce="n", verifier="v" * 43)

    async def go(self, **query: str) -> Claimed:
        back = urllib.parse.urlsplit(self.fake.authorize(await self.depart()))
        told = {**dict(urllib.parse.parse_qsl(back.query)), **query}
        now_s = self.fake.world.clock.wall_s()
        person, _ = await self.provider.finish(told, redirect_uri=BACK, nonce="n", verifier="v" * 43, now_s=now_s)
        return person

    async def problem(self, **query: str) -> SignInProblem:
        with pytest.raises(SignInProblem) as caught:
            await self.go(**query)
        assert "IDP" in str(caught.value)
        return caught.value

    def count(self, end: str) -> int:
        return sum(url.endswith(end) for url in self.fake.asked)


@in_loop
async def test_description_and_keys_are_kept_for_an_hour_and_an_old_description_is_better_than_none() -> None:
    trip = Trip()
    for _ in range(3):
        assert (await trip.go()).subject == "1"
    assert (trip.count("configuration"), trip.count("/keys")) == (1, 1)
    trip.fake.world.clock.advance(METADATA_LIFETIME_S + 1)
    trip.fake.metadata = {"issuer": "https://evil.example"}
    assert (await trip.go()).subject == "1"
    assert trip.count("configuration") >= 2


@in_loop
async def test_a_new_key_of_the_provider_is_fetched_when_it_is_met_but_not_for_every_token() -> None:
    trip = Trip()
    await trip.go()
    trip.fake.key = RSAKey.generate_key(2048, {"kid": "two", "use": "sig"})
    trip.fake.header = {"alg": "RS256", "kid": "two"}
    assert (await trip.problem()).code == "bad-token"  # the keys were fetched a moment ago
    trip.fake.world.clock.advance(KEYS_PAUSE_S + 1)
    assert (await trip.go()).subject == "1"
    trip.fake.header = {"alg": "RS256", "kid": "three"}
    for _ in range(3):
        assert (await trip.problem()).code == "bad-token"
    assert trip.count("/keys") == 2


@in_loop
async def test_those_who_wait_on_a_silent_provider_hear_of_it_together() -> None:
    trip = Trip()
    trip.fake.down = "no answer within 10 s"
    said = await asyncio.gather(*(trip.depart() for _ in range(20)), return_exceptions=True)
    assert {str(one) for one in said} == {
        "IDP cannot be reached at this moment (no answer within 10 s). Try again later, or sign in another way."
    }
    assert trip.count("configuration") == 1
    trip.fake.down = ""
    trip.fake.world.clock.advance(SILENCE_S + 1)
    assert (await trip.go()).subject == "1"


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (Answer(400, {"error": "invalid_grant"}), "denied", "no longer good"),
        (Answer(401, {"error": "invalid_client"}), "provider-nonsense", "invalid_client"),
        (Answer(403, {}), "provider-nonsense", "status 403"),
        (Answer(200, {}), "provider-nonsense", "no identity"),
        (Answer(200, {"id_token": 7}), "provider-nonsense", "no identity"),
        (Answer(200, {"id_token": "a.b.c"}), "bad-token", "no signed token"),
    ],
)
def test_what_the_token_endpoint_may_answer(answer: Answer, code: str, words: str) -> None:
    @in_loop
    async def check() -> None:
        trip = Trip()
        trip.fake.token_answer = answer
        problem = await trip.problem()
        assert problem.code == code
        assert words in str(problem)

    check()


@pytest.mark.parametrize(
    ("member", "value"),
    [("nonce", "another"), ("aud", "another"), ("iss", "https://evil.example"), ("exp", 1), ("sub", None)],
)
def test_an_identity_that_does_not_hold_is_refused(member: str, value: Any) -> None:
    @in_loop
    async def check() -> None:
        trip = Trip()
        trip.fake.claims = {member: value}
        assert (await trip.problem()).code == "bad-token"

    check()


@in_loop
async def test_what_the_identity_lacks_is_asked_for_and_must_be_of_the_same_person() -> None:
    trip = Trip()
    trip.fake.claims = {"email": None, "email_verified": None}
    assert (await trip.go()).email == "alice@example.com"
    trip.fake.claims = {"email": None, "sub": "2"}
    problem = await trip.problem()
    assert (problem.code, "another person" in str(problem)) == ("provider-nonsense", True)


@in_loop
async def test_an_issuer_that_is_told_on_the_way_back_must_be_right_and_told_when_promised() -> None:
    trip = Trip()
    assert (await trip.go(iss="https://idp.example")).subject == "1"
    with pytest.raises(SignInProblem, match="another provider"):
        await trip.go(iss="https://evil.example")
    promising = Trip()
    promising.fake.metadata["authorization_response_iss_parameter_supported"] = True
    with pytest.raises(SignInProblem, match="another provider"):
        await promising.go()


@in_loop
async def test_a_way_back_without_a_code_is_nonsense() -> None:
    problem = await Trip().problem(code="")
    assert (problem.code, "no code" in str(problem)) == ("provider-nonsense", True)


@in_loop
async def test_a_client_without_a_secret_and_one_that_is_asked_in_the_body_say_who_they_are() -> None:
    trip = Trip()
    seen: list[dict[str, str]] = []

    async def post(_url: str, form: Any, basic: Any) -> Answer:
        assert basic is None
        seen.append(dict(form))
        return Answer(200, {})

    trip.fake.post = post  # type: ignore[method-assign, assignment]
    trip.fake.metadata["token_endpoint_auth_methods_supported"] = ["client_secret_post"]
    await trip.problem()
    assert (seen[0]["client_id"], seen[0]["client_secret"]) == ("buri", "s e cret")
