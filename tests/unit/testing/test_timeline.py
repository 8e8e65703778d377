from __future__ import annotations

from buri.testing.timeline import Timeline


def test_things_due_together_happen_in_the_order_asked_for() -> None:
    timeline, seen = Timeline(), list[str]()
    timeline.call_later(1, lambda: seen.append("b"))
    timeline.call_later(0.5, lambda: seen.append("a"))
    timeline.call_later(1, lambda: seen.append("c"))
    timeline.run(1)

    assert seen == ["a", "b", "c"]


def test_a_cancelled_timer_never_happens_and_a_condition_stops_time() -> None:
    timeline, seen = Timeline(10.0), list[float]()
    timeline.call_later(1, lambda: seen.append(timeline.now)).cancel()
    timeline.call_later(2, lambda: seen.append(timeline.now))
    timeline.call_later(3, lambda: seen.append(timeline.now))

    assert timeline.run_until(lambda: bool(seen), within_s=10)
    assert (seen, timeline.now) == ([12.0], 12.0)
    assert not timeline.run_until(lambda: False, within_s=5)
    assert timeline.now == 17.0


def test_what_was_due_during_a_jump_comes_late() -> None:
    timeline, seen = Timeline(0.0), list[float]()
    timeline.call_later(1, lambda: seen.append(timeline.now))
    timeline.jump(100)
    timeline.run(0)

    assert seen == [100.0]
