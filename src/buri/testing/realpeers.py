"""Real peers in the lab: Tailscale's daemon, CLI, relay and test control server, started as their users start them."""

from __future__ import annotations

import json
import re
from typing import Any

from buri.testing.lab import Host, LabError, Process, peer, wait_until
from buri.testing.nodecommands import NodeCommands
from buri.testing.traffic import send_checked


class Tailscaled(NodeCommands):
    """A `tailscaled` on a host, and its CLI. `userspace` runs it without a TUN device, with a SOCKS5 proxy."""

    SOCKS_PORT = 1055

    def __init__(self, host: Host, *, userspace: bool = False) -> None:
        self.host = host
        self.state = host.directory / "tailscale"
        self.state.mkdir(exist_ok=True)
        self.socket = host.directory / "tailscaled.sock"  # as short as can be: a socket's path ends at 107 bytes
        self.userspace = userspace
        self.process = self.start()

    def start(self) -> Process:
        """Start the daemon and wait for its socket."""
        self.process = self.host.start(
            "tailscaled",
            peer("tailscaled"),
            f"--statedir={self.state}",
            f"--state={self.state}/tailscaled.state",
            f"--socket={self.socket}",
            "--tun=userspace-networking" if self.userspace else "--tun=tailscale0",
            "--port=41641",
            *([f"--socks5-server=127.0.0.1:{self.SOCKS_PORT}"] if self.userspace else []),
        )
        wait_until("tailscaled's socket", self.socket.exists)
        return self.process

    def send_checked(self, address: str, port: int, size_bytes: int) -> None:
        """Send bytes to a peer's sink and check them; without a TUN device by `tailscale nc`, and by the proxy."""
        if not self.userspace:
            send_checked(self.host, address, port, size_bytes)
            return
        nc = (str(peer("tailscale")), f"--socket={self.socket}", "nc", address, str(port))
        send_checked(self.host, address, port, size_bytes, command=nc)
        send_checked(self.host, address, port, size_bytes, proxy_port=self.SOCKS_PORT)

    def cli(self, *words: str, check: bool = True, timeout_s: float = 60.0) -> str:
        """Run `tailscale …`; returns its output (stdout, then stderr)."""
        done = self.host.run(peer("tailscale"), f"--socket={self.socket}", *words, check=check, timeout_s=timeout_s)
        return done.stdout + done.stderr

    def status(self) -> dict[str, Any]:
        """`tailscale status --json`."""
        text = self.host.run(peer("tailscale"), f"--socket={self.socket}", "status", "--json").stdout
        status: dict[str, Any] = json.loads(text)
        return status


def start_derper(host: Host, *, port: int = 3340, stun_port: int = 3478) -> tuple[Process, dict[str, Any]]:
    """Tailscale's own relay in its development mode (plain HTTP behind TLS of its own is not there: clients of a lab
    reach it by `InsecureForTests` over a self-signed certificate); returns the process and its DERP map."""
    certs = host.directory / "derper"
    certs.mkdir(exist_ok=True)
    name = host.address
    make_certificate(host, certs, name)
    process = host.start(
        "derper",
        peer("derper"),
        f"-a=:{port}",
        "-http-port=-1",
        f"-hostname={name}",
        "-certmode=manual",
        f"-certdir={certs}",
        f"-stun-port={stun_port}",
        f"-c={certs}/derper.json",
    )
    process.expect(r"serving|listening|STUN server listening")
    node = {
        "Name": "9a",
        "RegionID": 9,
        "HostName": name,
        "IPv4": name,
        "STUNPort": stun_port,
        "DERPPort": port,
        "InsecureForTests": True,
    }
    return process, {"Regions": {"9": {"RegionID": 9, "RegionCode": "lab", "RegionName": "Lab", "Nodes": [node]}}}


def make_certificate(host: Host, directory: Any, name: str) -> None:
    """A self-signed certificate where derper looks for it: <name>.crt and <name>.key."""
    from buri.relay.identity import make_self_signed

    chain, key = make_self_signed([name], authority=True)
    (directory / f"{name}.crt").write_bytes(chain)
    (directory / f"{name}.key").write_bytes(key)


class TestControl:
    """Tailscale's own control server for tests, at http://<private address>:<port>."""

    __test__ = False  # not a test case, whatever its name says

    def __init__(self, host: Host, address: str, derp_map: dict[str, Any], *flags: str, port: int = 8090) -> None:
        self.host = host
        self.url = f"http://{address}:{port}"
        self.admin = f"http://127.0.0.1:{port + 1}"
        path = host.directory / "derpmap.json"
        path.write_text(json.dumps(derp_map))
        self.process = host.start(
            "testcontrol",
            peer("testcontrol"),
            f"-listen=0.0.0.0:{port}",
            f"-admin=127.0.0.1:{port + 1}",
            f"-url={self.url}",
            f"-derp-map={path}",
            *flags,
        )
        self.process.expect("listening on")

    def call(self, method: str, path: str, body: str = "") -> str:
        """Call the admin side; raises LabError with its answer when that is not 200."""
        script = (
            "import sys,urllib.request as u;"
            "r=u.Request(sys.argv[1],data=sys.stdin.buffer.read() if sys.argv[2]=='POST' else None,method=sys.argv[2],"
            "headers={'Content-Type':'application/json'});"  # as a form, Go would swallow the body
            "sys.stdout.write(u.urlopen(r,timeout=10).read().decode())"
        )
        return self.host.run("python3", "-c", script, f"{self.admin}{path}", method, stdin=body).stdout

    def nodes(self) -> list[dict[str, Any]]:
        """Every node it knows, as tailcfg.Node JSON."""
        nodes: list[dict[str, Any]] = json.loads(self.call("GET", "/nodes"))
        return nodes


def direct_line(lines: list[str]) -> str:
    """The first line of a ping's output that came by a direct path; raises LabError with all lines when none did."""
    for line in lines:
        if re.search(r"via (\d+\.\d+\.\d+\.\d+|\[[0-9a-f:]+\]):\d+", line):
            return line
    raise LabError("no pong came by a direct path:\n" + "\n".join(lines))
