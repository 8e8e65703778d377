"""Play a machine by hand: feed, let time pass, look at what came out."""

from __future__ import annotations

from typing import Generic, TypeVar

from buri.machine.contract import Machine

TransmitT = TypeVar("TransmitT")
EventT = TypeVar("EventT")


class Playbook(Generic[TransmitT, EventT]):
    """Drains a machine into `sent` and `said`; `now` moves by `advance` only, from one due time to the next."""

    def __init__(self, machine: Machine[TransmitT, EventT], now: float = 1000.0) -> None:
        self.machine = machine
        self.now = now
        self.sent: list[TransmitT] = []
        self.said: list[EventT] = []

    def drain(self) -> None:
        """Take everything the machine has to send and to say."""
        while (transmit := self.machine.poll_transmit()) is not None:
            self.sent.append(transmit)
        while (event := self.machine.poll_event()) is not None:
            self.said.append(event)

    def clear(self) -> None:
        """Drain and forget: what follows is what matters."""
        self.drain()
        self.sent.clear()
        self.said.clear()

    def advance(self, seconds: float) -> None:
        """Let time pass, calling `handle_timeout` at each due time.

        Raises AssertionError when a machine stays due at one instant: a shell would spin on it.
        """
        end = self.now + seconds
        spins = 0
        self.drain()
        while (at := self.machine.next_timeout()) is not None and at <= end:
            spins = spins + 1 if at <= self.now else 0
            assert spins < 10, f"the machine stays due at {self.now}"
            self.now = max(self.now, at)
            self.machine.handle_timeout(self.now)
            self.drain()
        self.now = end
