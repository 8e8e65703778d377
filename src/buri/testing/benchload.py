"""What a benchmark measures with: iperf3 and ping between two hosts of the lab, and who used the processor meanwhile."""

from __future__ import annotations

import json
import os
import re
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from buri.testing.lab import Host, LabError, Process

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def pid_cpu_s(pid: int) -> float:
    """CPU time of all threads of a process and of the children it has reaped."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(int(fields[at]) for at in (11, 12, 13, 14)) / TICKS_PER_S


def rss_mb(process: Process) -> float:
    """Resident memory of a process."""
    return int(Path(f"/proc/{process.popen.pid}/statm").read_text().split()[1]) * PAGE_BYTES / 1e6


def busy_s() -> float:
    """CPU time that processes of the whole machine have used; interrupts, which belong to nobody, are left out."""
    user, nice, system = (int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:4])
    return (user + nice + system) / TICKS_PER_S


def own_s() -> float:
    """CPU time of this program and of the load generators that it has started and reaped."""
    spent = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in spent)


class Meter:
    """Around a run: `daemons_s` is what the daemons used, `others_cores` what strangers took of the machine."""

    def __init__(self, daemons: Sequence[Process]) -> None:
        self._daemons = daemons
        self.daemons_s = 0.0
        self.others_cores = 0.0

    def _read(self) -> tuple[float, float, float, float]:
        return time.monotonic(), sum(pid_cpu_s(one.popen.pid) for one in self._daemons), busy_s(), own_s()

    def __enter__(self) -> Self:
        self._before = self._read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        took_s, self.daemons_s, busy, own = (
            after - before for after, before in zip(self._read(), self._before, strict=True)
        )
        self.others_cores = max(0.0, (busy - self.daemons_s - own) / took_s)


def _iperf3(sender: Host, receiver: Host, address: str, words: Sequence[str], seconds: int) -> dict[str, object]:
    server = receiver.start("iperf3", "iperf3", "-s", "-1", "--forceflush", "-B", address)
    server.expect("listening")
    try:
        done = sender.run(
            "iperf3", "-c", address, "-t", str(seconds), "-J", "--get-server-output", *words,
            check=False, timeout_s=seconds + 40.0,
        )  # fmt: skip
        try:
            report: dict[str, object] = json.loads(done.stdout)
        except ValueError as error:
            raise LabError(f"iperf3 to {address} gave no report: {(done.stdout + done.stderr)[-400:]}") from error
        if "error" in report:
            raise LabError(f"iperf3 to {address}: {report['error']}")
        return report
    finally:
        server.stop(2)
        receiver.processes.remove(server)


def tcp(
    sender: Host, receiver: Host, address: str, *, seconds: int, streams: int = 1, reverse: bool = False
) -> tuple[float, float]:
    """Gbit/s and bytes received by TCP (cubic); `reverse` sends from the receiver's end."""
    words = ["-C", "cubic", "-P", str(streams), *(["-R"] if reverse else [])]
    end = _iperf3(sender, receiver, address, words, seconds)["end"]
    assert isinstance(end, dict)
    got = end["sum_received"]
    return got["bits_per_second"] / 1e9, float(got["bytes"])


def udp(sender: Host, receiver: Host, address: str, *, seconds: int, size_bytes: int, rate: str) -> float:
    """Thousands of datagrams a second that arrive when `rate` (iperf3's notation) is offered."""
    report = _iperf3(sender, receiver, address, ["-u", "-b", rate, "-l", str(size_bytes)], seconds)
    text = str(report.get("server_output_text", ""))
    return delivered(text) / 1e3


def delivered(text: str) -> float:
    """Datagrams a second that iperf3's server says it received; raises LabError when it says nothing of them."""
    found = re.search(r"([\d.]+)-([\d.]+)\s+sec .*?\s(\d+)/(\d+) \([^)]*\)\s+receiver", text)
    if found is None:
        raise LabError(f"iperf3's server gave no count of datagrams:\n{text[-400:]}")
    start_s, end_s, lost, sent = (float(word) for word in found.groups())
    return (sent - lost) / (end_s - start_s)


def flood_ping(sender: Host, address: str, count: int = 5000) -> float:
    """Mean round trip of `ping -f` in microseconds."""
    said = sender.run("ping", "-f", "-q", "-c", str(count), address, timeout_s=60).stdout
    found = re.search(r"= [\d.]+/([\d.]+)/", said)
    if found is None:
        raise LabError(f"ping to {address} gave no times:\n{said}")
    return float(found.group(1)) * 1e3
