"""The requests of a control session on their way, and what a node reports of itself."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

import msgspec

from buri.core.addresses import AddrPort
from buri.core.keys import DiscoPublic, NodePrivate, NodePublic
from buri.machine.contract import Randomness
from buri.wire.tailcfg.mapping import MapRequest, encode
from buri.wire.tailcfg.node import Hostinfo
from buri.wire.tailcfg.register import LOGOUT_EXPIRY, ZERO_NODE_KEY, RegisterAuth, RegisterRequest

CAPABILITY_VERSION = 130  # what we claim to understand, as tailscale-rs does (wire reference 1a, "Capability version")
MAX_ANSWER_BYTES = 1 << 20
MAX_RETRY_AFTER_S = 3600.0
PROBLEM_CHARACTERS = 200


class Report(msgspec.Struct, frozen=True):
    """What the control server is to know of us: host, and endpoints with their EndpointType numbers."""

    hostinfo: Hostinfo = msgspec.field(default_factory=Hostinfo)
    endpoints: tuple[tuple[AddrPort, int], ...] = ()


class Call:
    """One request: `kind` says what its answer is for; `deadline` None: it may be held as long as the server likes."""

    __slots__ = ("body", "deadline", "headers", "kind", "status")

    def __init__(self, kind: str, deadline: float | None) -> None:
        self.kind = kind
        self.deadline = deadline
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = bytearray()


class Answer:
    """How a call ended: `problem` is empty when it went well; `tail` is the same as the end of a sentence."""

    __slots__ = ("problem", "tail")

    def __init__(self, call: Call, error: str) -> None:
        self.problem = error
        if not error and call.status != 200:
            text = call.body.decode("utf-8", "replace").strip()[:PROBLEM_CHARACTERS]
            self.problem = f"HTTP {call.status}{': ' + text if text else ''}"
        self.tail = f" ({self.problem})" if self.problem else ""


def retry_after_s(call: Call, rng: Randomness) -> float | None:
    """How long an HTTP 429 asks us to wait; None for any other answer (wire reference 1a, register)."""
    if call.status != 429:
        return None
    text = call.headers.get("retry-after", "")
    wait_s = rng.uniform(5.0, 10.0)
    if text.isascii() and text.isdigit():
        wait_s = float(text)
    elif text:
        try:  # an HTTP date is relative to the server's own clock
            wait_s = (parsedate_to_datetime(text) - parsedate_to_datetime(call.headers["date"])).total_seconds()
        except (KeyError, ValueError, TypeError):  # TypeError: one date names a time zone, the other does not
            wait_s = rng.uniform(5.0, 10.0)
    return min(max(wait_s, 0.0), MAX_RETRY_AFTER_S)


class Login:
    """A login on its way; `give_up_at` None: nobody waits for it, so it is tried for ever."""

    def __init__(
        self,
        key: NodePrivate,
        old: NodePublic | None = None,
        auth_key: str = "",
        ephemeral: bool = False,
        give_up_at: float | None = None,
    ) -> None:
        self.key = key
        self.old = old
        self.auth_key = auth_key
        self.ephemeral = ephemeral
        self.give_up_at = give_up_at
        self.followup = ""


def register_request(login: Login, report: Report) -> bytes:
    """The body of POST /machine/register for a login."""
    return encode(
        RegisterRequest(
            version=CAPABILITY_VERSION,
            node_key=str(login.key.public()),
            old_node_key=ZERO_NODE_KEY if login.old is None else str(login.old),
            auth=RegisterAuth(auth_key=login.auth_key) if login.auth_key else None,
            followup=login.followup,
            hostinfo=report.hostinfo,
            ephemeral=login.ephemeral,
        )
    )


def logout_request(key: NodePrivate, report: Report) -> bytes:
    """The body of POST /machine/register that ends a node: an expiry long past."""
    return encode(
        RegisterRequest(
            version=CAPABILITY_VERSION, node_key=str(key.public()), expiry=LOGOUT_EXPIRY, hostinfo=report.hostinfo
        )
    )


def map_request(key: NodePrivate, disco: DiscoPublic, report: Report, *, stream: bool) -> bytes:
    """The body of POST /machine/map: the stream, or the lite update that tells `report`."""
    return encode(
        MapRequest(
            version=CAPABILITY_VERSION,
            compress="zstd",
            keep_alive=True,
            node_key=str(key.public()),
            disco_key=str(disco),
            stream=stream,
            omit_peers=not stream,
            hostinfo=report.hostinfo,
            endpoints=[str(address) for address, _ in report.endpoints] or None,
            endpoint_types=[kind for _, kind in report.endpoints] or None,
        )
    )
