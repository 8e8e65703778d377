"""Buri's own programs in the lab, started as their users start them."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from buri.testing.lab import PRIVATE_SERVER, Host, LabError, Process, wait_until
from buri.testing.nodecommands import NodeCommands

BIN = Path(sys.executable).parent
PROGRAMS = {
    "buri": [sys.executable, "-c", "import sys; from buri.cli.main import main; sys.exit(main())"],
    "burid": [sys.executable, "-c", "import sys; from buri.roles.daemon import main; sys.exit(main())"],
}
SOURCE = Path(__file__).resolve().parents[2]
ENVIRONMENT = {"PYTHONPATH": str(SOURCE)}


class BuriServer:
    """A `buri server` at http://10.77.0.1:8080 (or what the flags say), and its `buri admin`."""

    def __init__(self, host: Host, *flags: str, url: str = f"http://{PRIVATE_SERVER}:8080") -> None:
        self.host = host
        self.environment = dict(ENVIRONMENT)  # the next start's
        self.url = url
        self.flags = flags or ("--listen=0.0.0.0:8080", f"--url={url}", "--stun=0.0.0.0:3478")
        self.state = host.directory / "state"
        self.process = self.start()

    def start(self) -> Process:
        """Start it and wait until it says how to join."""
        self.process = self.host.start(
            "server", *PROGRAMS["buri"], "server", f"--state-dir={self.state}", *self.flags, env=self.environment
        )
        self.process.expect(r"buri up --login-server", timeout_s=30)
        return self.process

    def admin(self, *words: str, check: bool = True) -> str:
        """Run `buri admin …`; returns its output (stdout, then stderr)."""
        command = [*PROGRAMS["buri"], "admin", f"--state-dir={self.state}", *words]
        done = self.host.run(*command, check=check, env=ENVIRONMENT)
        return done.stdout if check else done.stdout + done.stderr

    def auth_key(self, *flags: str, user: str = "lab") -> str:
        """Make a pre-auth key (reusable unless flags say otherwise), and its user when missing."""
        users = json.loads(self.admin("users", "list", "--json"))
        if user not in {row["name"] for row in users}:
            self.admin("users", "create", user)
        made = json.loads(self.admin("preauthkeys", "create", f"--user={user}", *(flags or ("--reusable",)), "--json"))
        key: str = made["key"]
        return key

    def nodes(self) -> list[dict[str, Any]]:
        """`buri admin nodes list --json`."""
        nodes: list[dict[str, Any]] = json.loads(self.admin("nodes", "list", "--json"))
        return nodes


class BuriRelay:
    """A `buri relay` on a public host, TLS by its own certificate on port 443 unless the flags say otherwise."""

    REGION = 900
    METRICS = "127.0.0.1:9100"

    def __init__(self, host: Host, *flags: str, hostname: str | None = None) -> None:
        self.host = host
        self.flags = (f"--hostname={hostname or host.address}", *flags)
        self.state = host.directory / "relay"
        self.process = self.start()

    def start(self) -> Process:
        """Start it and wait until it has said everything."""
        self.process = self.host.start(
            "relay",
            *PROGRAMS["buri"],
            "relay",
            f"--state-dir={self.state}",
            "--listen=[::]:443",
            f"--metrics={self.METRICS}",
            *self.flags,
            env=ENVIRONMENT,
        )
        self.process.expect("omitDefaultRegions")
        return self.process

    def derp_map(self) -> dict[str, Any]:
        """The DERP map that it keeps in its state directory."""
        found: dict[str, Any] = json.loads((self.state / "derp-map.json").read_text())
        return found

    def trust(self) -> dict[str, Any]:
        """What an engine of `enginelab` needs to reach it: its address, and its pin alone."""
        node = self.derp_map()["Regions"][str(self.REGION)]["Nodes"][0]
        where = {"address": self.host.address, "port": node["DERPPort"], "certificate": node["CertName"]}
        return {"region": self.REGION, **where}

    def figure(self, name: str) -> int:
        """One of its metrics."""
        ask = f"import urllib.request as u;print(u.urlopen('http://{self.METRICS}/metrics').read().decode())"
        page = self.host.run(sys.executable, "-c", ask).stdout
        match = re.search(rf"^{name} (\d+)$", page, re.MULTILINE)
        if match is None:
            raise LabError(f"the relay has no figure {name}:\n{page}")
        return int(match.group(1))


class Burid(NodeCommands):
    """A `burid` on a host, and its `buri`."""

    def __init__(self, host: Host, *flags: str, start: bool = True) -> None:
        self.host = host
        self.flags = flags
        self.environment = dict(ENVIRONMENT)  # the next start's
        self.state = host.directory / "buri"
        self.socket = host.directory / "burid.sock"
        if start:
            self.process = self.start()

    def start(self) -> Process:
        """Start the daemon and wait for its socket."""
        self.socket.unlink(missing_ok=True)
        self.process = self.host.start(
            "burid",
            *PROGRAMS["burid"],
            f"--statedir={self.state}",
            f"--socket={self.socket}",
            "--tun=buri0",
            *self.flags,
            env=self.environment,
        )
        wait_until(f"{self.host.name}'s burid", lambda: self.socket.exists() or self.process.popen.poll() is not None)
        return self.process

    def cli(self, *words: str, check: bool = True, timeout_s: float = 60.0) -> str:
        """Run `buri …`; returns its output (stdout, then stderr)."""
        command = [*PROGRAMS["buri"], f"--socket={self.socket}", *words]
        done = self.host.run(*command, check=check, timeout_s=timeout_s, env=ENVIRONMENT)
        return done.stdout + done.stderr

    def code(self, *words: str) -> tuple[int, str]:
        """Run `buri …` and return its exit code and output."""
        command = [*PROGRAMS["buri"], f"--socket={self.socket}", *words]
        done = self.host.run(*command, check=False, env=ENVIRONMENT)
        return done.returncode, done.stdout + done.stderr

    def figures(self) -> dict[str, int]:
        """`buri debug metrics`: the engine's and the path machines' counters, without their prefix and suffix."""
        lines = (line for line in self.cli("debug", "metrics").splitlines() if not line.startswith("#"))
        pairs = (line.rsplit(" ", 1) for line in lines)
        return {name.removeprefix("burid_").removesuffix("_total"): int(value) for name, value in pairs}

    def status(self) -> dict[str, Any]:
        """`buri status --json`."""
        done = self.host.run(*PROGRAMS["buri"], f"--socket={self.socket}", "status", "--json", env=ENVIRONMENT)
        status: dict[str, Any] = json.loads(done.stdout)
        return status
