"""The plain /etc/resolv.conf: the person's own file is moved aside, and comes back on `down`, `--cleanup` and after a crash.

Life: *theirs* (no mark of ours in the file) → `apply` moves it to the backup, then puts ours in its place by one rename →
`revert` moves the backup back. A crash leaves ours with a backup beside it; whoever comes next reverts. A file that
somebody else wrote over ours is left as it is, and the backup, which they did not want, goes. A file of ours is never
moved to the backup. Where /etc/resolv.conf is a mount point (containers), the file is written in place instead.
"""

from __future__ import annotations

import errno
import os
from ipaddress import ip_address
from pathlib import Path

from buri.core.addresses import AddrPort
from buri.core.errors import NotPermittedError, SystemFault
from buri.dns.osconfig import OSDNS
from buri.machine.magicdns import FALLBACK_IPV4, SERVICE_IPV4, SERVICE_IPV6

MARK = "# Written by burid, Buri's node. Your own file is kept as {backup} and comes back when Buri stops."
_MARK_BEGIN = "# Written by burid,"
_OURS = frozenset({SERVICE_IPV4, SERVICE_IPV6, FALLBACK_IPV4})
MAX_BYTES = 1 << 20


class PlainFile:
    """See the module; `directory` is /etc but in tests."""

    name = "resolv.conf"
    splits = False

    def __init__(self, directory: Path = Path("/etc")) -> None:
        self._file = directory / "resolv.conf"
        self._backup = directory / "resolv.conf.before-buri"

    async def upstreams(self) -> tuple[AddrPort, ...]:
        """The name servers of the person's own file."""
        own = self._backup if self._is_ours(self._file) else self._file
        return nameservers(_read(own))

    async def apply(self, wanted: OSDNS) -> None:
        """Put our file in the place of theirs."""
        lines = [MARK.format(backup=self._backup)]
        lines += [f"nameserver {address}" for address in wanted.nameservers]
        if wanted.search_domains:
            lines.append("search " + " ".join(wanted.search_domains))
        own = self._backup if self._is_ours(self._file) else self._file
        lines += [line for line in _read(own).splitlines() if line.split()[:1] == ["options"]]
        text = "".join(f"{line}\n" for line in lines)
        try:
            if not self._is_ours(self._file):
                self._set_aside()
            self._put(self._file, text)
        except OSError as error:
            raise _fault(self._file, error) from error

    async def revert(self) -> None:
        """Give the person's own file back."""
        self.revert_now()

    def revert_now(self) -> bool:
        """The same without a loop; whether there was anything to give back."""
        try:
            if not self._is_ours(self._file):
                had = os.path.lexists(self._backup)
                self._backup.unlink(missing_ok=True)  # somebody wrote a new one since
                return had
            if os.path.lexists(self._backup):
                self._move(self._backup, self._file)
            else:
                self._file.unlink(missing_ok=True)  # there was none before us
        except OSError as error:
            raise _fault(self._file, error) from error
        return True

    def _set_aside(self) -> None:
        if os.path.lexists(self._file):
            self._move(self._file, self._backup)
        else:
            self._backup.unlink(missing_ok=True)

    def _move(self, source: Path, target: Path) -> None:
        """By rename, links and all; where either is a mount point, by copying what is in it."""
        try:
            source.rename(target)
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.EXDEV):
                raise
            self._put(target, _read(source))
            if target == self._file:
                source.unlink(missing_ok=True)

    @staticmethod
    def _put(path: Path, text: str) -> None:
        fresh = path.with_name(f".{path.name}.buri")
        try:
            fresh.write_text(text)
            fresh.chmod(0o644)
            fresh.rename(path)
        except OSError as error:
            fresh.unlink(missing_ok=True)
            if error.errno not in (errno.EBUSY, errno.EXDEV):
                raise
            path.write_text(text)

    @staticmethod
    def _is_ours(path: Path) -> bool:
        return _read(path).startswith(_MARK_BEGIN)


def nameservers(text: str) -> tuple[AddrPort, ...]:
    """The name servers of a resolv.conf, without our own; resolv.conf(5)."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":
            continue
        try:
            address = ip_address(words[1].partition("%")[0])
        except ValueError:
            continue
        if address not in _OURS:
            found.append(AddrPort(address, 53))
    return tuple(found)


def _read(path: Path) -> str:
    """What is in the file, "" when there is none (a link into nothing too)."""
    try:
        with path.open(errors="replace") as file:
            return file.read(MAX_BYTES)
    except OSError:
        return ""


def _fault(path: Path, error: OSError) -> SystemFault:
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return NotPermittedError(
            f"{path} may not be written ({error.strerror}), so names of the tailnet are not found by programs here.",
            remedy="Run burid as root on a writable /etc, or switch this off: buri set --accept-dns=false.",
        )
    return SystemFault(f"{path} cannot be written: {error.strerror or error}.")
