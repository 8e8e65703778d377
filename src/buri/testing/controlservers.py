"""The control servers that `bench/control.py` loads: each in a directory of its own, on loopback, without a relay."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from buri.core.errors import SystemFault
from buri.core.keys import MachinePublic
from buri.testing import benchload, headscale
from buri.testing.loadnode import Server
from buri.testing.ourpeers import ENVIRONMENT, PROGRAMS

START_S = 20.0
RETRY_S = 0.1
RELAYS: dict[str, Any] = {  # nobody goes there: a netmap must have one
    "Regions": {
        "1": {
            "RegionID": 1,
            "RegionCode": "lab",
            "RegionName": "Lab",
            "Nodes": [{"Name": "1a", "RegionID": 1, "HostName": "relay.test", "IPv4": "127.0.0.1"}],
        }
    }
}


class ControlServer(ABC):
    """One that runs from its making until `stop`."""

    name: str

    def __init__(self, directory: Path, command: Sequence[str | Path]) -> None:
        self.directory = directory
        self.log = directory / "server.log"
        self.environment = {**os.environ, **ENVIRONMENT}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=self.environment)

    @property
    @abstractmethod
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""

    @abstractmethod
    def auth_key(self) -> str:
        """A reusable key of a new user."""

    async def ready(self) -> Server:
        """Wait until it listens; returns where, and its key."""
        for _ in range(int(START_S / RETRY_S)):
            with contextlib.suppress(OSError, ValueError, KeyError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.write(b"GET /key?v=142 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                answer = await reader.read()
                writer.close()
                key = json.loads(answer.partition(b"\r\n\r\n")[2])["publicKey"]
                return Server("127.0.0.1", self.port, MachinePublic.parse(key))
            if self.process.poll() is not None:
                break
            await asyncio.sleep(RETRY_S)
        raise SystemFault(f"{self.name} did not come up: {self.log.read_text()[-1000:]}")

    def say(self, *command: str | Path) -> str:
        """Run a command of its administrator; returns what it printed."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemFault(f"{' '.join(map(str, command))}: {done.stdout}{done.stderr}")
        return done.stdout

    def cpu_s(self) -> float:
        """CPU time used so far."""
        return benchload.pid_cpu_s(self.process.pid)

    def peak_rss_mb(self) -> float:
        """The most memory it ever had."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
        raise SystemFault("The kernel does not tell a process's peak memory.")

    def stop(self) -> None:
        """SIGTERM, and wait."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class BuriControl(ControlServer):
    """`buri server`."""

    name = "buri server"
    port = 0

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        where = f"127.0.0.1:{self.port}"
        relays = directory / "derp-map.json"
        relays.write_text(json.dumps(RELAYS))
        self._state = directory / "state"
        words = [f"--state-dir={self._state}", f"--listen={where}", f"--url=http://{where}", f"--derp-map={relays}"]
        super().__init__(directory, [*PROGRAMS["buri"], "server", "--no-relay", *words])

    def auth_key(self) -> str:
        """See ControlServer."""
        admin = [*PROGRAMS["buri"], "admin", f"--state-dir={self._state}"]
        self.say(*admin, "users", "create", "load")
        made = json.loads(self.say(*admin, "preauthkeys", "create", "--user=load", "--reusable", "--json"))
        return str(made["key"])


class HeadscaleControl(ControlServer):
    """`headscale serve`."""

    name = "headscale"
    port = 0

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        where = f"127.0.0.1:{self.port}"
        self._configuration = headscale.write_configuration(
            directory, listen=where, url=f"http://{where}", derp_map=RELAYS, metrics=f"127.0.0.1:{free_port()}"
        )
        super().__init__(directory, [headscale.PROGRAM, f"--config={self._configuration}", "serve"])

    def words(self, *words: str) -> Any:
        """Run `headscale … --output=json`; returns what it printed."""
        return json.loads(self.say(headscale.PROGRAM, f"--config={self._configuration}", "--output=json", *words))

    def auth_key(self) -> str:
        """See ControlServer."""
        user = self.words("users", "create", "load")["id"]
        return str(self.words("preauthkeys", "create", f"--user={user}", "--reusable")["key"])


def free_port() -> int:
    """A TCP port of loopback that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def running(make: Callable[[Path], ControlServer]) -> AsyncIterator[tuple[ControlServer, Server, str]]:
    """A fresh server, where it is, and a key to join by."""
    with TemporaryDirectory(prefix="buri-bench-") as directory:
        control = make(Path(directory))
        try:
            yield control, await control.ready(), control.auth_key()
        finally:
            control.stop()
