"""`webport.SignInPort` on the domain: people, providers, and the machines that wait for them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import urllib.parse
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from buri.control.clock import Clock
from buri.control.coordinator import Coordinator
from buri.control.credentials import digest_of
from buri.control.domain.signin import unclaimed_owner
from buri.control.service import PendingLogin
from buri.control.signinproblem import SignInProblem
from buri.control.snapshot import NodeRecord, UserRecord
from buri.control.webport import Arrival, Departure, Invitation, ProviderChoice
from buri.core.errors import BuriError

if TYPE_CHECKING:  # its cryptography is heavy, and a server without providers needs none of it
    from buri.control.oidc.provider import Provider

FLOW_LIFETIME_S = 600
FLOW_COOKIE = "buri-flow-"
CALLBACK = "/login/callback/"
MAX_SPENT = 4096
STATE_BYTES = 24


class Flow(msgspec.Struct, frozen=True):
    """A sign-in on its way through a provider, kept by the browser that began it and sealed by us."""

    state: str
    provider: str
    onward: str
    link: str
    expires_s: float


class SignIn:
    """See SignInPort. `secret` seals what browsers keep; it must outlive a restart."""

    def __init__(
        self,
        coordinator: Coordinator,
        url: str,
        secret: bytes,
        *,
        clock: Clock,
        entropy: Callable[[int], bytes],
        providers: Sequence[Provider] = (),
        passwords: bool = True,
    ) -> None:
        self.url = url.rstrip("/")
        self.passwords = passwords
        self._coordinator = coordinator
        self._people = coordinator.people
        self._clock = clock
        self._entropy = entropy
        self._secret = hmac.digest(secret, b"buri sign-in 1", "sha256")
        self._providers = {provider.settings.name: provider for provider in providers}
        self._spent: OrderedDict[bytes, None] = OrderedDict()

    @property
    def providers(self) -> tuple[ProviderChoice, ...]:
        """See SignInPort."""
        return tuple(ProviderChoice(one.settings.name, one.settings.label) for one in self._providers.values())

    @property
    def unclaimed(self) -> bool:
        """See SignInPort."""
        return unclaimed_owner(self._coordinator.ledger.snapshot)[0]

    def person(self, token: str) -> UserRecord | None:
        """See SignInPort."""
        return self._people.user_of_session(token)

    async def sign_in(self, name: str, password: str, source: str, *, replacing: str = "") -> str:
        """See SignInPort."""
        if not self.passwords:
            raise SignInProblem("wrong-password")
        return await self._people.sign_in(name, password, source, replacing=replacing)

    async def sign_out(self, token: str) -> None:
        """See SignInPort."""
        await self._people.sign_out(token)

    def invitation(self, token: str) -> Invitation | None:
        """See SignInPort."""
        link = self._people.link(token)
        if link is None:
            return None
        user = self._people.user_of_link(link)
        return Invitation(link.kind, "" if user is None else user.name, link.kind == "owner")

    async def accept(self, token: str, name: str, password: str, *, replacing: str = "") -> str:
        """See SignInPort."""
        return await self._people.accept(token, name, password, replacing=replacing)

    # ---- through a provider ---------------------------------------------------------------------------------------

    async def depart(self, provider: str, onward: str, link: str = "") -> Departure:
        """See SignInPort."""
        chosen = self._provider(provider)
        state = base64.urlsafe_b64encode(self._entropy(STATE_BYTES)).decode()
        flow = Flow(state, provider, onward, link, self._clock.wall_s() + FLOW_LIFETIME_S)
        url = await chosen.authorization_url(
            redirect_uri=self._callback(provider),
            state=state,
            nonce=self._derived("nonce", state),
            verifier=self._derived("verifier", state),
        )
        return Departure(url, _cookie_name(state), self._sealed(flow), FLOW_LIFETIME_S)

    async def arrive(
        self, provider: str, query: Mapping[str, str], cookies: Mapping[str, str], *, replacing: str = ""
    ) -> Arrival:
        """See SignInPort."""
        chosen = self._provider(provider)
        state = query.get("state", "")
        flow = self._opened(cookies.get(_cookie_name(state), "")) if state else None
        if flow is None or not hmac.compare_digest(flow.state.encode(), state.encode()):
            raise SignInProblem("page-expired")
        if flow.provider != provider:
            raise SignInProblem("mixed-up")
        if flow.expires_s <= self._clock.wall_s():
            raise SignInProblem("page-expired")
        try:
            self._spend(digest_of(state))
            claimed, may_come = await chosen.finish(
                query,
                redirect_uri=self._callback(provider),
                nonce=self._derived("nonce", state),
                verifier=self._derived("verifier", state),
                now_s=self._clock.wall_s(),
            )
            token = await self._people.enter(
                claimed, may_come=may_come, link_token=flow.link, origin=digest_of(state), replacing=replacing
            )
        except SignInProblem as problem:
            problem.onward = flow.onward
            raise
        return Arrival(token, flow.onward, _cookie_name(state))

    def _provider(self, name: str) -> Provider:
        if name not in self._providers:
            raise SignInProblem("unknown-provider")
        return self._providers[name]

    def _callback(self, provider: str) -> str:
        return f"{self.url}{CALLBACK}{urllib.parse.quote(provider)}"

    def _spend(self, state: bytes) -> None:
        """A state serves once. After a restart the session that it opened still says so."""
        if state in self._spent:
            raise SignInProblem("replayed")
        self._spent[state] = None
        if len(self._spent) > MAX_SPENT:
            self._spent.popitem(last=False)

    def _derived(self, purpose: str, state: str) -> str:
        """A secret that belongs to a state: nothing but the state and ours is needed to know it again."""
        mac = hmac.digest(self._secret, f"{purpose} {state}".encode(), "sha256")
        return base64.urlsafe_b64encode(mac).decode().rstrip("=")

    def _sealed(self, flow: Flow) -> str:
        body = base64.urlsafe_b64encode(msgspec.json.encode(flow)).decode().rstrip("=")
        return f"{body}.{self._seal(body)}"

    def _opened(self, cookie: str) -> Flow | None:
        body, _, seal = cookie.partition(".")
        if not hmac.compare_digest(self._seal(body).encode(), seal.encode()):
            return None
        return msgspec.json.decode(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)), type=Flow)

    def _seal(self, body: str) -> str:
        return hmac.new(self._secret, f"flow {body}".encode(), hashlib.sha256).hexdigest()

    # ---- machines -------------------------------------------------------------------------------------------------

    def machine(self, code: str) -> PendingLogin | None:
        """See SignInPort."""
        return self._coordinator.pending_login(code)

    async def admit(self, code: str, user: UserRecord) -> NodeRecord:
        """See SignInPort."""
        if self.machine(code) is None or user.id not in self._coordinator.ledger.head.users:
            raise SignInProblem("no-login")
        try:
            return await self._coordinator.registrar.approve(code, user)
        except BuriError as error:
            raise SignInProblem("not-joined", reason=error.message) from error

    def turn_away(self, code: str) -> None:
        """See SignInPort."""
        login = self.machine(code)
        if login is None or login.approved:
            raise SignInProblem("no-login")
        try:
            self._coordinator.registrar.reject(code)
        except BuriError as error:  # somebody else's click was faster
            raise SignInProblem("no-login") from error

    def machines(self, user: UserRecord) -> list[NodeRecord]:
        """See SignInPort."""
        nodes = self._coordinator.ledger.snapshot.nodes
        return [node for _, node in sorted(nodes.items()) if node.user_id == user.id]


def _cookie_name(state: str) -> str:
    """Each sign-in has its own cookie, so that two tabs do not undo each other."""
    return FLOW_COOKIE + hashlib.sha256(state.encode()).hexdigest()[:12]
