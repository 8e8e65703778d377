"""Registration as the front asks for it: decide, commit, answer; logins that wait for a person (wire reference 1b)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import msgspec

from buri.control.clock import Clock
from buri.control.domain import expiry, registration, reports
from buri.control.domain.registration import Applicant, Owner, Refusal
from buri.control.ledger import Ledger
from buri.control.logins import CODE_ENTROPY, CODE_TTL_S, Login, Logins, code_of, make_code, source_of
from buri.control.mapper import encode
from buri.control.service import PendingLogin
from buri.control.settings import Settings
from buri.control.snapshot import NodeRecord, UserRecord
from buri.core.errors import BuriError, StateError, WireError
from buri.core.keys import MachinePublic, NodePublic
from buri.policy.model import Policy
from buri.wire.tailcfg.base import parse_time
from buri.wire.tailcfg.node import Hostinfo
from buri.wire.tailcfg.register import RegisterRequest, RegisterResponse

REMEMBERED_JOINS = 256


class Registrar:
    """Lets machines in. `entropy(n)` gives n random bytes."""

    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        settings: Settings,
        entropy: Callable[[int], bytes],
        policy: Callable[[], Policy],
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._settings = settings
        self._entropy = entropy
        self._policy = policy
        self._logins = Logins()
        self._joined: OrderedDict[str, PendingLogin] = OrderedDict()

    async def register(self, machine: MachinePublic, request: RegisterRequest, source: str = "") -> RegisterResponse:
        """Answer one request; a follow-up waits until its login ends. Raises WireError for a malformed one."""
        applicant = _applicant(machine, request)
        now_s = self._clock.wall_s()
        asked_expiry_s = _expiry(request)
        if asked_expiry_s:
            return await self._change_expiry(applicant, asked_expiry_s, now_s)
        node = registration.renewable(self._ledger.head, machine, applicant.key, now_s)
        if node is not None:
            return await self._welcome_back(applicant, node, now_s)
        if request.auth is not None and request.auth.auth_key:
            key = request.auth.auth_key
            owner = registration.owner_by_auth_key(self._ledger.head, applicant, key, self._policy(), now_s)
            return _refused(owner) if isinstance(owner, Refusal) else await self._join(applicant, owner)
        holder = self._ledger.head.node_of_key(applicant.key)
        if holder is not None and holder.machine == machine and not request.followup:
            return RegisterResponse(node_key_expired=True)  # the client comes again with a fresh key
        if refusal := registration.nobodys_tags(applicant, self._policy()):
            return _refused(refusal)
        code = code_of(request.followup)
        login = self._logins.get(code, now_s) if code else None
        if login is None and code:
            self._begin(code, applicant, source)  # from before our restart: the request says all that the login was
            login = self._logins.get(code, now_s)
        if login is None:
            code = make_code(self._entropy(CODE_ENTROPY))
            self._begin(code, applicant, source)
            return RegisterResponse(auth_url=f"{self._settings.url.rstrip('/')}/register/{code}")
        if (login.applicant.machine, login.applicant.key) != (machine, applicant.key):
            return _refused(Refusal("this login link belongs to another machine or key. Log in again."))
        await login.ended.wait()
        if login.refusal:
            return _refused(Refusal(login.refusal))
        joined = self._ledger.snapshot.node_of_key(applicant.key)
        if joined is None:
            return _refused(Refusal("the node was deleted while it logged in. Log in again."))
        return self._accepted(joined)

    def pending_login(self, code: str) -> PendingLogin | None:
        """What a login page shows; None when the code is unknown or over. The newest that joined are remembered."""
        login = self._logins.get(code, self._clock.wall_s())
        return self._joined.get(code) if login is None else _shown(login)

    def pending_logins(self) -> list[PendingLogin]:
        """All logins that wait, oldest first."""
        return [_shown(login) for login in self._logins.waiting(self._clock.wall_s())]

    async def approve(self, code: str, user: UserRecord) -> NodeRecord:
        """Let the waiting login in as a node of `user`. Raises StateError."""
        login = self._login(code)
        owner = registration.owner_by_user(user, login.applicant, self._policy())
        refusal_or_join = owner if isinstance(owner, Refusal) else self._decide(login.applicant, owner)
        if isinstance(refusal_or_join, Refusal):
            raise StateError(refusal_or_join.text)
        edit, node = refusal_or_join
        login.deciding = True
        try:
            await self._ledger.enter(edit)
        finally:
            login.deciding = False
        self._logins.end(login)
        self._joined[login.code] = msgspec.structs.replace(_shown(login), approved=True, node_name=node.name)
        if len(self._joined) > REMEMBERED_JOINS:
            self._joined.popitem(last=False)
        return node

    async def readmit(self, node: NodeRecord) -> None:
        """End the login that `node` waits in because its key had ended: an administrator has pushed the end away.

        A node that was restarted after its key's end has made a new key and asks a person in; it must not need one.
        """
        for login in self._logins.waiting(self._clock.wall_s()):
            applicant = login.applicant
            if (applicant.machine, applicant.old_key) != (node.machine, node.key):
                continue
            if self._ledger.head.node_of_key(applicant.key) is None:
                await self._ledger.enter(registration.readmit(self._ledger.head, applicant, node, self._clock.wall_s()))
                self._logins.end(login)
            return

    def reject(self, code: str) -> None:
        """Tell the waiting machine no. Raises StateError."""
        self._logins.end(self._login(code), "an administrator of this server refused the login.")

    def _login(self, code: str) -> Login:
        login = self._logins.get(code_of(code), self._clock.wall_s())
        if login is None or login.deciding:
            raise StateError(
                "No login waits under this code: it is mistyped, over, or approved already.",
                remedy="Take the code from the address that the node shows, or start the login again.",
            )
        return login

    def _begin(self, code: str, applicant: Applicant, source: str) -> None:
        self._logins.begin(code, applicant, self._clock.wall_s(), source_of(source))
        self._clock.call_later(CODE_TTL_S + 1.0, lambda: self._logins.purge(self._clock.wall_s()))

    def _decide(self, applicant: Applicant, owner: Owner) -> registration.Joined | Refusal:
        return registration.join(
            self._ledger.head,
            applicant,
            owner,
            now_s=self._clock.wall_s(),
            key_expiry_s=self._settings.key_expiry_s,
            entropy=self._entropy(registration.STABLE_ID_ENTROPY),
        )

    async def _join(self, applicant: Applicant, owner: Owner) -> RegisterResponse:
        decided = self._decide(applicant, owner)
        if isinstance(decided, Refusal):
            return _refused(decided)
        edit, node = decided
        try:
            await self._ledger.enter(edit)
        except BuriError as error:
            return _refused(Refusal(f"the server could not keep this node: {error}"))
        return self._accepted(node)

    async def _welcome_back(self, applicant: Applicant, node: NodeRecord, now_s: float) -> RegisterResponse:
        """A known key that is still good: take the host's news and go on."""
        edit = registration.refresh(self._ledger.head, node, applicant, now_s)
        await self._ledger.enter(edit)
        return self._accepted(edit.snapshot.nodes[node.id])

    async def _change_expiry(self, applicant: Applicant, expiry_s: float, now_s: float) -> RegisterResponse:
        node = self._ledger.head.node_of_key(applicant.key)
        if node is None or node.machine != applicant.machine:
            return RegisterResponse(node_key_expired=True)  # nothing is left to log out
        if expiry_s <= now_s:
            await self._ledger.enter(expiry.log_out(self._ledger.head, node, now_s))
            return RegisterResponse(node_key_expired=True)
        await self._ledger.enter(expiry.shorten(self._ledger.head, node, expiry_s, now_s))
        return self._accepted(node)

    def _accepted(self, node: NodeRecord) -> RegisterResponse:
        owner = None if node.user_id is None else self._ledger.head.users.get(node.user_id)
        user, login = encode.user_and_login(owner)
        return RegisterResponse(user=user, login=login, machine_authorized=node.authorized)


def _applicant(machine: MachinePublic, request: RegisterRequest) -> Applicant:
    key = NodePublic.parse(request.node_key)
    if not key:
        raise WireError("a RegisterRequest needs a NodeKey.")
    hostinfo = request.hostinfo or Hostinfo()
    reports.check_hostinfo(hostinfo)
    old_key = NodePublic.parse(request.old_node_key) if request.old_node_key else NodePublic.zero()
    return Applicant(machine, key, hostinfo, reports.checked_cap(request.version), request.ephemeral, old_key)


def _expiry(request: RegisterRequest) -> float:
    try:
        return parse_time(request.expiry)
    except ValueError as error:
        raise WireError("Expiry of a RegisterRequest is not an RFC 3339 time.") from error


def _refused(refusal: Refusal) -> RegisterResponse:
    return RegisterResponse(error=refusal.text)


def _shown(login: Login) -> PendingLogin:
    applicant = login.applicant
    return PendingLogin(
        code=login.code,
        hostname=applicant.hostinfo.hostname,
        os=applicant.hostinfo.os,
        machine=applicant.machine,
        node_key=applicant.key,
        approved=False,
        os_version=applicant.hostinfo.os_version,
        source=login.source,
    )
