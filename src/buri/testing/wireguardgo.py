"""WireGuard's own userspace implementation as a peer of the lab, with fixed keys and one peer."""

from __future__ import annotations

import sys

from buri.testing.enginelab import Side
from buri.testing.lab import Process, peer

# WireGuard's configuration protocol (wireguard.com/xplatform) on the program's own socket.
_CONFIGURE = """
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect("/var/run/wireguard/wg0.sock")
s.sendall(sys.stdin.read().encode())
answer = b""
while not answer.endswith(b"\\n\\n"):
    answer += s.recv(1000)
assert answer == b"errno=0\\n\\n", answer
"""


def start_wireguard_go(side: Side, other: Side) -> Process:
    """Run wireguard-go at `side` on wg0 with MTU 1280, with `other` as its only peer."""
    process = side.host.start("wireguard-go", peer("wireguard-go"), "-f", "wg0", env={"LOG_LEVEL": "verbose"})
    process.expect("UAPI listener started")
    side.host.run(
        sys.executable, "-c", _CONFIGURE,
        stdin=(
            f"set=1\nprivate_key={side.private.raw.hex()}\nlisten_port=41641\n"
            f"public_key={other.private.public().raw.hex()}\nendpoint={other.host.address}:41641\n"
            + "".join(f"allowed_ip={prefix}\n" for prefix in other.allowed)
            + "\n"
        ),
    )  # fmt: skip
    side.host.ip("addr", "add", f"{side.ipv4}/10", "dev", "wg0")
    side.host.ip("addr", "add", f"{side.ipv6}/48", "dev", "wg0")
    side.host.ip("link", "set", "wg0", "mtu", "1280", "up")
    return process
