"""Traffic for the lab: TCP with every byte checked, and a link that can be cut."""

from __future__ import annotations

import sys

from buri.testing.lab import Home, Host, LabError, Process

_SINK = """
import hashlib, socket, sys
s = socket.create_server((sys.argv[1], int(sys.argv[2])), family=socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
print("ready", flush=True)
while True:
    c, _ = s.accept()
    digest = hashlib.sha256()
    while data := c.recv(65536):
        digest.update(data)
    c.sendall(digest.hexdigest().encode())
    c.close()
"""
_SOURCE = """
import hashlib, random, socket, sys
size = int(sys.argv[3])
data = random.Random(int(sys.argv[4])).randbytes(min(size, 1 << 20))
digest = hashlib.sha256()
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=float(sys.argv[5]))
sent = 0
while sent < size:
    part = data[: size - sent]
    s.sendall(part)
    digest.update(part)
    sent += len(part)
s.shutdown(socket.SHUT_WR)
answer = b""
while more := s.recv(100):
    answer += more
assert answer.decode() == digest.hexdigest(), "the bytes that arrived are not the bytes that were sent"
print(sent)
"""


def start_sink(host: Host, address: str, port: int) -> Process:
    """A TCP server that answers each connection with the SHA-256 of what it got."""
    process = host.start(f"sink-{port}", sys.executable, "-c", _SINK, address, str(port))
    process.expect("ready")
    return process


def send_checked(host: Host, address: str, port: int, size_bytes: int, *, seed: int = 1, timeout_s: float = 30) -> None:
    """Send bytes to a sink; raises LabError unless all arrived unchanged."""
    done = host.run(
        sys.executable, "-c", _SOURCE, address, str(port), str(size_bytes), str(seed), str(timeout_s),
        check=False, timeout_s=timeout_s + 10,
    )  # fmt: skip
    if done.returncode != 0:
        raise LabError(f"{size_bytes} bytes from {host.name} to {address} did not arrive whole: {done.stderr[-400:]}")


def block_udp(homes: tuple[Home, Home], *, on: bool) -> None:
    """Drop UDP between two homes' public addresses, as a strict firewall would; relays and servers stay in reach."""
    for mine, other in (homes, homes[::-1]):
        rules = f"ip saddr {other.public} meta l4proto 17 drop\n ip daddr {other.public} meta l4proto 17 drop"
        chains = "\n".join(
            f"chain {hook} {{ type filter hook {hook} priority -300\n {rules if on else ''}\n }}"
            for hook in ("prerouting", "forward")
        )
        mine.router.nft(f"table ip block\ndelete table ip block\ntable ip block {{\n{chains}\n}}\n")
