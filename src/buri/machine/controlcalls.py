"""The requests of a control session on their way, and what a node reports of itself."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

import msgspec

from buri.core.addresses import AddrPort
from buri.machine.contract import Randomness
from buri.wire.tailcfg.node import Hostinfo

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
    if text.isdigit():
        wait_s = float(text)
    elif text:
        try:  # an HTTP date is relative to the server's own clock
            wait_s = (parsedate_to_datetime(text) - parsedate_to_datetime(call.headers["date"])).total_seconds()
        except (KeyError, ValueError):
            wait_s = rng.uniform(5.0, 10.0)
    return min(max(wait_s, 0.0), MAX_RETRY_AFTER_S)
