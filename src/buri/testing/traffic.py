"""Traffic for the lab: TCP with every byte checked, and a link that can be cut."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Self

from buri.testing.lab import Home, Host, LabError, Process

_SINK = """
import hashlib, socket, sys
s = socket.create_server((sys.argv[1], int(sys.argv[2])), family=socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
print("ready", flush=True)
while True:
    c, _ = s.accept()
    digest = hashlib.sha256()
    with c, c.makefile("rb") as came:
        left = int.from_bytes(came.read(8), "big")
        while left and (data := came.read1(min(left, 65536))):
            digest.update(data)
            left -= len(data)
        c.sendall(digest.hexdigest().encode())
"""
_SOURCE = """
import hashlib, random, socket, subprocess, sys
address, port, size, seed, timeout_s, proxy_port, *command = sys.argv[1:]
size = int(size)
if command:
    program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    out, back = program.stdin, program.stdout
else:
    proxy_port = int(proxy_port)
    s = socket.create_connection(("127.0.0.1", proxy_port) if proxy_port else (address, int(port)), timeout=float(timeout_s))
    out, back = s.makefile("wb"), s.makefile("rb")
    if proxy_port:  # SOCKS5, RFC 1928: no authentication, CONNECT to an IPv4 address
        out.write(b"\\5\\1\\0")
        out.flush()
        assert back.read(2) == b"\\5\\0", "no SOCKS5 proxy"
        out.write(b"\\5\\1\\0\\1" + socket.inet_aton(address) + int(port).to_bytes(2, "big"))
        out.flush()
        answer = back.read(10)
        assert answer[:2] == b"\\5\\0", f"the proxy answered {answer!r}"
data = random.Random(int(seed)).randbytes(min(size, 1 << 20))
digest = hashlib.sha256()
out.write(size.to_bytes(8, "big"))
sent = 0
while sent < size:
    part = data[: size - sent]
    out.write(part)
    digest.update(part)
    sent += len(part)
out.flush()
assert back.read(64).decode() == digest.hexdigest(), "the bytes that arrived are not the bytes that were sent"
if command:
    program.kill()
print(sent)
"""
_ECHO = """
import socket, sys
s = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("ready", flush=True)
while True:
    c, _ = s.accept()
    with c:
        while data := c.recv(65536): c.sendall(data)
"""
_TALK = """
import random, socket, sys, time
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=float(sys.argv[3]))
blocks, longest = 0, 0.0
while True:
    sent = random.randbytes(16384)
    began = time.monotonic()
    s.sendall(sent)
    got = b""
    while len(got) < len(sent):
        more = s.recv(65536)
        assert more, "the connection ended"
        got += more
    assert got == sent, "the bytes that came back are not the bytes that were sent"
    longest = max(longest, time.monotonic() - began)
    blocks += 1
    if blocks % 10 == 0: print(blocks, "blocks came back, the slowest after", round(longest * 1000), "ms", flush=True)
    time.sleep(0.02)
"""


def start_sink(host: Host, address: str, port: int) -> Process:
    """A TCP server that answers each connection with the SHA-256 of what it got; a length of 8 bytes goes before that."""
    process = host.start(f"sink-{port}", sys.executable, "-c", _SINK, address, str(port))
    process.expect("ready")
    return process


def send_checked(
    host: Host,
    address: str,
    port: int,
    size_bytes: int,
    *,
    seed: int = 1,
    timeout_s: float = 30,
    proxy_port: int = 0,
    command: Sequence[str] = (),
) -> None:
    """Send bytes to a sink; raises LabError unless all arrived unchanged.

    By a connection of its own, by the SOCKS5 proxy at `proxy_port` of the host, or through the standard input and output
    of a `command` that connects to the sink.
    """
    done = host.run(
        sys.executable, "-c", _SOURCE,
        address, str(port), str(size_bytes), str(seed), str(timeout_s), str(proxy_port), *command,
        check=False, timeout_s=timeout_s + 10,
    )  # fmt: skip
    if done.returncode != 0:
        raise LabError(f"{size_bytes} bytes from {host.name} to {address} did not arrive whole: {done.stderr[-400:]}")


class Talk:
    """One TCP connection from a host to another for as long as the `with` block lasts, every byte checked both ways.

    A silence of `patience_s`, a wrong byte or an end of the connection ends it: the next `goes_on` raises LabError.
    """

    def __init__(self, source: Host, target: Host, address: str, port: int, *, patience_s: float = 5.0) -> None:
        self._echo = target.start(f"echo-{port}", sys.executable, "-c", _ECHO, address, str(port))
        self._echo.expect("ready")
        words = ("-c", _TALK, address, str(port), str(patience_s))
        self._process = source.start(f"talk-{port}", sys.executable, *words)
        self.goes_on()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stop()
        self._echo.stop()

    def goes_on(self) -> str:
        """Wait until more has come back from now on; returns how much, and how long the slowest took."""
        start = len(self._process.lines)
        return self._process.expect("blocks came back.*", start=start).group(0)

    @property
    def blocks(self) -> int:
        """How many blocks of 16 KiB have come back so far, to the ten."""
        counts = [line.split()[0] for line in self._process.lines if "blocks came back" in line]
        return int(counts[-1]) if counts else 0


def block_udp(homes: tuple[Home, Home], *, on: bool) -> None:
    """Drop UDP between two homes' public addresses, as a strict firewall would; relays and servers stay in reach."""
    for mine, other in (homes, homes[::-1]):
        rules = f"ip saddr {other.public} meta l4proto 17 drop\n ip daddr {other.public} meta l4proto 17 drop"
        chains = "\n".join(
            f"chain {hook} {{ type filter hook {hook} priority -300\n {rules if on else ''}\n }}"
            for hook in ("prerouting", "forward")
        )
        mine.router.nft(f"table ip block\ndelete table ip block\ntable ip block {{\n{chains}\n}}\n")
