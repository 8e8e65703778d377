from __future__ import annotations

from random import Random

from buri.machine.backoff import Backoff


def test_waits_double_up_to_the_longest_with_jitter_in_their_upper_half() -> None:
    backoff = Backoff(Random(1), first_s=1.0, longest_s=10.0)
    waits = [backoff.next_s() for _ in range(8)]

    for wait, ceiling in zip(waits, [1, 2, 4, 8, 10, 10, 10, 10], strict=True):
        assert ceiling / 2 <= wait <= ceiling


def test_a_success_starts_anew() -> None:
    backoff = Backoff(Random(1), first_s=1.0, longest_s=10.0)
    for _ in range(2000):
        backoff.next_s()
    assert backoff.failures == 2000
    backoff.reset()

    assert backoff.failures == 0
    assert backoff.next_s() <= 1.0
