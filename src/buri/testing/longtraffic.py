"""Traffic that goes on while things happen: one TCP connection of iperf3, and full-size pings that time a silence."""

from __future__ import annotations

import re
import time
from itertools import pairwise

from buri.testing.lab import Host, LabError, Process

_REPLY = re.compile(r"^\[(\d+\.\d+)\].*icmp_seq=\d+ .*time=([\d.]+) ms")
_RATE = re.compile(r"(\d+\.\d+)-(\d+\.\d+)\s+sec\s+[\d.]+ \w+\s+([\d.]+) Mbits/sec")
_FLOWS = r"sec\s+[\d.]+ \w+\s+(?!0\.00 )[\d.]+ Mbits/sec"


class Stream:
    """One TCP connection as fast as it goes, from `sender` to `address` on `receiver`, until stopped."""

    def __init__(self, sender: Host, receiver: Host, address: str, *, port: int = 5201) -> None:
        words = ("--forceflush", "-i", "0.5", "-f", "m", "-p", str(port))
        self.server = receiver.start(f"iperf-{port}", "iperf3", "-s", *words)
        self.server.expect("listening")
        self.client = sender.start(f"iperf-{port}", "iperf3", "-c", address, "-t", "3600", *words)
        self.expect_flow(timeout_s=30)

    def expect_flow(self, *, timeout_s: float = 20) -> None:
        """Wait until bytes arrive (from now on). Raises LabError when they do not, or the connection ended."""
        self.server.expect(_FLOWS, start=len(self.server.lines), timeout_s=timeout_s)
        if self.client.popen.poll() is not None:
            raise LabError("the connection ended:\n" + "\n".join(self.client.lines[-5:]))

    def expect_rate(self, least: float, *, timeout_s: float = 60) -> float:
        """Wait for a second at `least` Mbit/s; returns it. Raises LabError when it does not come."""
        deadline = time.monotonic() + timeout_s
        while (rate := self.measure(1)) < least:
            if time.monotonic() > deadline:
                raise LabError(f"{rate:.1f} Mbit/s where {least:g} were expected, for {timeout_s:g} s.")
        return rate

    def rates(self, last_s: float) -> list[float]:
        """Mbit/s received in each of the last half seconds."""
        found = [float(rate[3]) for line in list(self.server.lines) if (rate := _RATE.search(line))]
        return found[-round(2 * last_s) :]

    def measure(self, seconds: float) -> float:
        """Mbit/s received over the coming seconds."""
        start = len(self.server.lines)
        for _ in range(round(2 * seconds)):
            self.server.expect(_RATE.pattern, start=start)
            start = next(n for n in range(start, len(self.server.lines)) if _RATE.search(self.server.lines[n])) + 1
        rates = self.rates(seconds)
        return sum(rates) / len(rates)

    def stop(self) -> None:
        self.client.stop()
        self.server.stop()


class Pings:
    """Ten pings a second that fill the tunnel's MTU: when which were answered tells how long nothing passed."""

    def __init__(self, sender: Host, address: str, *, size_bytes: int = 1252) -> None:
        self._process: Process = sender.start(
            "pings", "ping", "-D", "-n", "-i", "0.1", "-s", str(size_bytes), "-M", "dont", address
        )
        self._process.expect("icmp_seq")

    def answered(self) -> list[float]:
        """When the pings were sent that were answered (seconds since the epoch)."""
        replies = [_REPLY.search(line) for line in list(self._process.lines)]
        return sorted(float(reply[1]) - float(reply[2]) / 1000 for reply in replies if reply)

    def back_after_s(self, moment: float, *, timeout_s: float = 30) -> float:
        """Wait for the answer to a ping sent after `moment`; returns how long after it that ping was sent."""
        seen = 0
        while True:
            after = [at for at in self.answered() if at > moment]
            if after:
                return after[0] - moment
            seen = max(seen, len(self._process.lines))
            self._process.expect(r"icmp_seq=\d+ .*time=", start=seen, timeout_s=timeout_s)

    def longest_silence_s(self, start: float) -> float:
        """The longest time between two answered pings since then, until now."""
        times = [start, *(at for at in self.answered() if at > start), time.time()]
        return max(later - earlier for earlier, later in pairwise(times))

    def stop(self) -> None:
        self._process.stop()
