"""The figures of path finding, and the bucket that bounds what a peer may make us do (wire reference 1e, "Timing")."""

from __future__ import annotations

SESSION_ACTIVE_S = 45.0  # a session counts as active that long after its last use
HEARTBEAT_S = 3.0
HEARTBEAT_REPEAT_S = 0.75  # a heartbeat without an answer is sent once more …
HEARTBEAT_DOUBT_S = 1.5  # … and, still without one, ends trust early: a silent path costs under 5 s
HEARTBEAT_DOUBT_ROUND_TRIPS = 3.0  # … unless the path is slower than that
TRUST_S = 6.5  # a UDP path is trusted that long after its last pong
FULL_SIZE_RETRY_S = 60.0  # a path that cuts full-size packets is tried whole again so often
PING_SPACING_S = 5.0  # between two discovery pings to one address
PING_TIMEOUT_S = 5.0
CALL_ME_MAYBE_SPACING_S = 5.0
UPGRADE_SEARCH_S = 60.0  # looking for something better than a trusted path
GOOD_ENOUGH_LATENCY_S = 0.005  # … unless it is this quick already
ENDPOINTS_FRESH_S = 27.0
ENDPOINTS_WAIT_S = 3.0  # tell a peer the old endpoints when STUN takes longer
STUN_PERIOD_MIN_S, STUN_PERIOD_MAX_S = 20.0, 26.0
MAX_CANDIDATES = 100
RELAY_IN_USE_EVERY_S = 5.0
CLOCK_JUMP_S = 10.0  # a timer this late means that the machine slept

# What an authenticated peer may cause: (a second, burst).
PINGS_ANSWERED = (20.0, 60.0)
CALL_ME_MAYBES_HEARD = (0.5, 4.0)


class TokenBucket:
    """`rate` tokens a second, up to `burst` saved."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, limit: tuple[float, float]) -> None:
        self._rate, self._burst = limit
        self._tokens = self._burst
        self._at: float | None = None

    def take(self, now: float) -> bool:
        """Whether there was a token to take."""
        if self._at is not None and now > self._at:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
