"""When to send a peer a call-me-maybe, and how many of its own to heed.

One is wanted with each discovery; it goes out once its spacing has passed, the relay to the peer is up and our
endpoints are fresh. Until then the wish stands; the manager asks at every change.
"""

from __future__ import annotations

from buri.machine.paths.limits import CALL_ME_MAYBE_SPACING_S, CALL_ME_MAYBES_HEARD, TokenBucket


class CallMeMaybeGate:
    """The wish to send one, and the bucket for those received."""

    def __init__(self) -> None:
        self.wanted_since: float | None = None
        self.sent_at: float | None = None
        self._heard = TokenBucket(CALL_ME_MAYBES_HEARD)

    def want(self, now: float) -> None:
        """Ask for one, unless one went out just now."""
        if self.wanted_since is None and (self.sent_at is None or now - self.sent_at >= CALL_ME_MAYBE_SPACING_S):
            self.wanted_since = now

    def note_sent(self, now: float) -> None:
        self.wanted_since = None
        self.sent_at = now

    def drop_wish(self) -> None:
        """A direct path was found meanwhile, or the session went idle."""
        self.wanted_since = None

    def reset(self) -> None:
        """The network changed: the next wish is granted at once."""
        self.wanted_since = self.sent_at = None

    def may_hear(self, now: float) -> bool:
        """Whether one received now is within what a peer may make us do."""
        return self._heard.take(now)
