"""A small internet of network namespaces, for tests and the demo (Linux, root or a user namespace's root).

A host is a holder process with a network, mount and host-name namespace of its own (an overlay on /etc, a fresh /run), so
nothing a daemon writes there reaches the machine. Nothing has a global name: when its holder dies, a host is gone.
In a user namespace (`ordinaryuser`) /etc is a copy: what root owns below an overlay could not be written there.

Topology: a bridge `core` (203.0.113.0/24, 2001:db8::/64) that public hosts and home routers plug into; a home is a router
with masquerade and a firewall as real ones have (new packets from outside are dropped, the router's own input included:
else an early probe would make the router answer and spoil hole punching), and hosts in 192.168.N.0/24 behind it.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from buri.core.errors import BuriError, NotPermittedError, SystemFault

PUBLIC_PREFIX = "203.0.113"
TUN = "/dev/net/tun"
PRIVATE_SERVER = "10.77.0.1"  # real clients take plain HTTP from private addresses only


class LabError(BuriError):
    """Something in the lab did not happen; carries the end of the log that tells why."""


def why_not() -> str | None:
    """One sentence why namespaces cannot be had here, None when they can."""
    if os.name != "posix" or os.uname().sysname != "Linux":
        return "network namespaces need Linux."
    if os.geteuid() != 0:
        return "network namespaces need root (run as root, or inside `unshare -Urnm`)."
    return why_no_tun() or missing_programs()


def why_no_tun() -> str | None:
    """One sentence why this user can open no TUN device, None when they can."""
    if not Path(TUN).exists():
        return f"{TUN} is missing: the kernel has no TUN device."
    if not os.access(TUN, os.R_OK | os.W_OK):
        return f"{TUN} is not open to this user: let root type `chmod 0666 {TUN}`, as distributions ship it."
    return None


def missing_programs() -> str | None:
    """One sentence that names the programs the lab lacks, None when it has all."""
    missing = [tool for tool in ("ip", "nft", "tc", "nsenter", "unshare") if shutil.which(tool) is None]
    if missing:
        return f"these programs are missing: {', '.join(missing)} (Debian: iproute2 nftables util-linux)."
    return None


def in_user_namespace() -> bool:
    """Whether this process is in a user namespace, whose root owns nothing of the machine's root."""
    try:
        return Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]
    except OSError:  # a kernel without user namespaces
        return False


class Process:
    """A program running in a host; its output goes to a log file and can be awaited line by line."""

    def __init__(self, popen: subprocess.Popen[str], name: str, log: Path) -> None:
        self.popen = popen
        self.name = name
        self.log = log
        self.lines: list[str] = []
        self._condition = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, name=f"log-{name}", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        with self.log.open("a") as log:
            for line in self.popen.stdout:
                log.write(line)
                log.flush()
                with self._condition:
                    self.lines.append(line.rstrip("\n"))
                    self._condition.notify_all()
        self.popen.stdout.close()
        with self._condition:
            self._ended = True
            self._condition.notify_all()

    def expect(self, pattern: str, *, timeout_s: float = 20.0, start: int = 0) -> re.Match[str]:
        """Wait for a line (from index `start`) that matches; raises LabError with the log's end otherwise."""
        deadline = time.monotonic() + timeout_s
        seen = start
        with self._condition:
            while True:
                while seen < len(self.lines):
                    if match := re.search(pattern, self.lines[seen]):
                        return match
                    seen += 1
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    state = "ended" if self._ended else f"said nothing like it for {timeout_s:g} s"
                    tail = "\n".join(self.lines[-15:])
                    raise LabError(f"{self.name}: waited for {pattern!r}, but it {state}. Its last lines:\n{tail}")
                self._condition.wait(left)

    def kill(self) -> None:
        """`kill -9`, and wait until it is gone."""
        self.popen.kill()
        self.popen.wait()

    def stop(self, timeout_s: float = 10.0) -> int:
        """SIGTERM, then SIGKILL after `timeout_s`; returns the exit code."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
            try:
                self.popen.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
        self._reader.join(2)
        return self.popen.returncode


class Host:
    """One machine of the lab."""

    def __init__(self, lab: Lab, name: str, holder: subprocess.Popen[str], directory: Path) -> None:
        self.lab = lab
        self.name = name
        self.holder = holder
        self.directory = directory
        self.processes: list[Process] = []
        self.address = ""

    @property
    def pid(self) -> int:
        return self.holder.pid

    def enter(self) -> list[str]:
        """The words before a command that make it run in this host."""
        return ["nsenter", f"--target={self.pid}", "--net", "--mount", "--uts", "--"]

    def run(
        self,
        *command: str | Path,
        check: bool = True,
        timeout_s: float = 60.0,
        stdin: str | None = None,
        env: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end; raises LabError when `check` and it fails or takes too long."""
        words = [str(word) for word in command]
        try:
            done = subprocess.run(
                [*self.enter(), *words],
                capture_output=True,
                text=True,
                timeout=timeout_s,
                input=stdin,
                env={**os.environ, "TS_NO_LOGS_NO_SUPPORT": "1", **(env or {})},
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{self.name}: `{' '.join(words)}` took over {timeout_s:g} s.") from error
        if check and done.returncode != 0:
            raise LabError(
                f"{self.name}: `{' '.join(words)}` ended with {done.returncode}:\n{done.stdout}{done.stderr}".rstrip()
            )
        return done

    def start(self, name: str, *command: str | Path, env: dict[str, str] | None = None) -> Process:
        """Start a program in the background; its log is `<lab>/<host>/<name>.log`."""
        popen = subprocess.Popen(
            [*self.enter(), *(str(word) for word in command)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            env={**os.environ, "TS_NO_LOGS_NO_SUPPORT": "1", "PYTHONUNBUFFERED": "1", **(env or {})},
        )
        process = Process(popen, f"{self.name}/{name}", self.directory / f"{name}.log")
        self.processes.append(process)
        return process

    def ip(self, *words: str) -> None:
        """`ip …` in this host."""
        self.run("ip", *words)

    def nft(self, script: str) -> None:
        """Load an nftables script."""
        self.run("nft", "-f", "-", stdin=script)

    def shape(self, interface: str, rate: str, *, burst: str = "32kb", limit: str = "375kb") -> None:
        """Limit what leaves by `interface` with a token bucket."""
        self.run(
            "tc", "qdisc", "replace", "dev", interface, "root", "tbf", "rate", rate, "burst", burst, "limit", limit
        )

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.stop()
        self.processes.clear()
        self.holder.kill()
        self.holder.wait()


class Home:
    """A NAT router and the hosts behind it."""

    def __init__(self, router: Host, number: int) -> None:
        self.router = router
        self.number = number
        self.public = f"{PUBLIC_PREFIX}.{10 + number}"
        self.hosts: list[Host] = []


class Lab:
    """A small internet; leave the `with` block and it is gone (unless `keep`)."""

    def __init__(self, directory: Path, *, keep: bool = False) -> None:
        if reason := why_not():
            raise NotPermittedError(f"The lab cannot be built: {reason}")
        self.directory = directory
        self.keep = keep
        self.hosts: dict[str, Host] = {}
        self.homes: list[Home] = []
        self._ports = 0
        directory.mkdir(parents=True, exist_ok=True)
        self.core = self._host("core")
        self.core.ip("link", "add", "br0", "type", "bridge")
        self.core.ip("addr", "add", f"{PUBLIC_PREFIX}.254/24", "dev", "br0")
        self.core.run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1", "net.ipv6.conf.br0.accept_dad=0")
        self.core.ip("addr", "add", "2001:db8::fe/64", "dev", "br0")
        self.core.ip("link", "set", "br0", "up")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.keep:
            self.close()

    def close(self) -> None:
        """End every process and host."""
        for host in reversed(list(self.hosts.values())):
            host.stop()
        self.hosts.clear()

    # ---- building -----------------------------------------------------------------------------------------------

    def _host(self, name: str) -> Host:
        directory = self.directory / name
        shutil.rmtree(directory, ignore_errors=True)
        (directory / "etc").mkdir(parents=True)
        etc = directory / "etc"
        if in_user_namespace():  # what only root may read is left out
            own_etc = f"{{ cp -dR /etc/. {etc}/ 2>/dev/null; true; }} && mount --bind {etc} /etc"
        else:
            overlay = f"lowerdir=/etc,upperdir={etc}/upper,workdir={etc}/work"
            own_etc = f"mkdir {etc}/upper {etc}/work && mount -t overlay overlay -o {overlay} /etc"
        script = (
            f"mount -t tmpfs -o mode=0755 tmpfs {etc} && {own_etc} && mount -t tmpfs -o mode=0755 tmpfs /run && "
            "mount -t sysfs sysfs /sys && ip link set lo up && "
            "for f in /proc/sys/net/ipv6/conf/default/accept_dad /proc/sys/net/ipv6/conf/all/accept_dad; "
            f"do echo 0 > $f; done; {{ echo {name} > /proc/sys/kernel/hostname; }} 2>/dev/null || hostname {name}; "
            "echo ready; exec sleep infinity"
        )
        words = ["unshare", "--net", "--mount", "--uts", "--propagation", "private", "--", "sh", "-c", script]
        if not self.keep:
            words = ["setpriv", "--pdeathsig", "KILL", *words]
        holder = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert holder.stdout is not None
        said = ""
        for line in holder.stdout:
            said += line
            if line.strip() == "ready":
                break
        else:
            raise SystemFault(f"A namespace could not be made: {said.strip()}")
        holder.stdout.close()
        host = Host(self, name, holder, directory)
        self.hosts[name] = host
        return host

    def _plug(self, host: Host, interface: str, port: str) -> None:
        """Connect `interface` of a host to the core's bridge."""
        self.core.ip("link", "add", port, "type", "veth", "peer", "name", interface, "netns", str(host.pid))
        self.core.ip("link", "set", port, "master", "br0", "up")
        host.ip("link", "set", interface, "up")

    def public_host(self, name: str, *, number: int, private: str | None = None) -> Host:
        """A host with a public address 203.0.113.<number>, and a private one that every home can reach when given."""
        host = self._host(name)
        self._plug(host, "eth0", f"p-{name}"[:15])
        host.address = f"{PUBLIC_PREFIX}.{number}"
        host.ip("addr", "add", f"{host.address}/24", "dev", "eth0")
        host.ip("-6", "addr", "add", f"2001:db8::{number}/64", "dev", "eth0", "nodad")
        host.ip("-6", "route", "add", "default", "via", "2001:db8::fe")
        if private is not None:
            host.ip("addr", "add", f"{private}/32", "dev", "lo")
            self.core.ip("route", "add", f"{private}/32", "via", host.address)
            for home in self.homes:
                home.router.ip("route", "add", f"{private}/32", "via", host.address)
        return host

    def home(
        self, name: str, *, hard: bool = False, rate: str | None = None, ipv6: bool = False, server: Host | None = None
    ) -> Home:
        """A home behind a NAT of its own: easy (keeps the port) or hard (maps anew for each destination)."""
        number = len(self.homes) + 1
        router = self._host(f"{name}-router")
        home = Home(router, number)
        self._plug(router, "wan", f"p-{name}"[:15])
        router.ip("addr", "add", f"{home.public}/24", "dev", "wan")
        router.ip("link", "add", "lan", "type", "bridge")
        router.ip("addr", "add", f"192.168.{number}.1/24", "dev", "lan")
        router.ip("link", "set", "lan", "up")
        router.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        if server is not None:
            router.ip("route", "add", f"{PRIVATE_SERVER}/32", "via", server.address)
        if ipv6:
            router.run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
            router.ip("-6", "addr", "add", f"2001:db8::{10 + number}/64", "dev", "wan", "nodad")
            router.ip("-6", "addr", "add", f"2001:db8:{number}::1/64", "dev", "lan", "nodad")
            router.ip("-6", "route", "add", "default", "via", "2001:db8::fe")
            self.core.ip("-6", "route", "add", f"2001:db8:{number}::/64", "via", f"2001:db8::{10 + number}")
        self._firewall(home, hard=hard, forwards={})
        if rate is not None:
            router.shape("wan", rate)
            self.core.shape(f"p-{name}"[:15], rate)
        self.homes.append(home)
        return home

    @staticmethod
    def _firewall(home: Home, *, hard: bool, forwards: dict[int, str]) -> None:
        masquerade = "masquerade random,fully-random" if hard else "masquerade"
        dnat = "\n".join(
            f"    meta nfproto ipv4 iifname wan {proto} dport {port} dnat ip to {to}"
            for port, to in forwards.items()
            for proto in ("tcp", "udp")
        )
        home.router.nft(
            f"""table inet nat
delete table inet nat
table inet nat {{
  chain pre {{
    type nat hook prerouting priority dstnat
{dnat}
  }}
  chain post {{
    type nat hook postrouting priority srcnat
    meta nfproto ipv4 oifname wan {masquerade}
  }}
}}
table inet fw
delete table inet fw
table inet fw {{
  chain input {{
    type filter hook input priority filter
    iifname wan ct state new icmp type echo-request accept
    iifname wan ct state new ip6 nexthdr 58 accept
    iifname wan ct state new drop
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop
    ct state established,related accept
    ct status dnat accept
    iifname lan accept
  }}
}}
"""
        )

    def forward(self, home: Home, port: int, host: Host, *, hard: bool = False) -> None:
        """Forward a port of the home's router (TCP and UDP) to a host behind it."""
        self._firewall(home, hard=hard, forwards={port: host.address})

    def home_host(self, home: Home, name: str, *, ipv6: bool = False) -> Host:
        """A host behind a home's router."""
        host = self._host(name)
        home.hosts.append(host)
        number = 9 + len(home.hosts)
        port = f"h-{name}"[:15]
        home.router.ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(host.pid))
        home.router.ip("link", "set", port, "master", "lan", "up")
        host.ip("link", "set", "eth0", "up")
        host.address = f"192.168.{home.number}.{number}"
        host.ip("addr", "add", f"{host.address}/24", "dev", "eth0")
        host.ip("route", "add", "default", "via", f"192.168.{home.number}.1")
        if ipv6:
            host.ip("-6", "addr", "add", f"2001:db8:{home.number}::{number}/64", "dev", "eth0", "nodad")
            host.ip("-6", "route", "add", "default", "via", f"2001:db8:{home.number}::1")
        return host


def wait_until(what: str, check: Callable[[], bool], *, timeout_s: float = 20.0, every_s: float = 0.1) -> None:
    """Poll a condition that has no event to await (the state of a foreign program); raises LabError in the end."""
    deadline = time.monotonic() + timeout_s
    while not check():
        if time.monotonic() >= deadline:
            raise LabError(f"waited {timeout_s:g} s in vain for: {what}.")
        time.sleep(every_s)


def peers_directory() -> Path:
    """Where `make peers` puts the real peers: build/peers/bin of the checkout, or BURI_PEERS."""
    if text := os.environ.get("BURI_PEERS"):
        return Path(text)
    return Path(__file__).resolve().parents[3] / "build" / "peers" / "bin"


def peer(name: str) -> Path:
    """The path of a real peer's program; raises LabError when it was not built."""
    path = peers_directory() / name
    if not path.exists():
        raise LabError(f"the real peer {name} is not built ({path} is missing): run `make peers`.")
    return path
