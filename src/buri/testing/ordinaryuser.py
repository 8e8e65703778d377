"""The lab for an ordinary user: root inside a user namespace, over namespaces of their own (Linux).

Whoever starts the demo or a ring of tests puts `words()` before the command. Inside, the user's own id looks like root's
and every other owner's like nobody's: what the lab does to namespaces works, what it would do to root's files does not.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from buri.testing import lab

_ENTER = ["unshare", "--user", "--map-root-user", "--net", "--mount", "--"]
_THEN = ["sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
_TRIAL = "mount -t tmpfs tmpfs /run && mount -t sysfs sysfs /sys"


def words() -> list[str]:
    """What goes before a command that needs the lab; nothing for root."""
    return [] if os.geteuid() == 0 else [*_ENTER, *_THEN]


def why_not() -> str | None:
    """One sentence why neither root nor a user namespace can be had here, None when one of them can."""
    if os.geteuid() == 0 or os.name != "posix" or os.uname().sysname != "Linux":
        return lab.why_not()
    if missing := lab.missing_programs():
        return missing
    try:
        trial = subprocess.run([*words(), "sh", "-c", _TRIAL], capture_output=True, text=True, check=False, timeout=20)
    except subprocess.TimeoutExpired:
        return "there is no root here, and a user namespace did not come up within 20 s."
    if trial.returncode != 0:
        said = trial.stderr.strip().splitlines()
        reason = said[-1] if said else f"`{shlex.join(_ENTER)}` ended with {trial.returncode}"
        return f"there is neither root nor a user namespace here ({reason})."
    return lab.why_no_tun()


@dataclass(frozen=True)
class Played:
    """An ordinary user played by root, in a mount namespace of their own: how the tests prove that no root is needed.

    `home` is theirs, `readable` they may read wherever it lies (a checkout below /root, say); /dev/net/tun has `tun_mode`.
    """

    home: Path
    readable: tuple[Path, ...]
    tun_mode: int = 0o666
    uid: int = 54321  # nobody's on any machine

    def words(self) -> list[str]:
        """What root puts before a command to have the user run it, from their home."""
        trees = [path.resolve() for path in (self.home, *self.readable)]
        hidden = sorted({top for tree in trees if (top := _first_closed(tree))})
        script = [
            "set -eu; umask 022",
            "mount -t tmpfs -o mode=0755 tmpfs /run",
            f"mknod /run/tun c 10 200; chmod {self.tun_mode:o} /run/tun; mount --bind /run/tun {lab.TUN}",
        ]
        for number, tree in enumerate(trees):
            script.append(f"mkdir /run/{number}; mount --rbind {shlex.quote(str(tree))} /run/{number}")
        script += [f"mount -t tmpfs -o mode=0755 tmpfs {shlex.quote(str(top))}" for top in hidden]
        for number, tree in enumerate(trees):
            if any(tree.is_relative_to(top) for top in hidden):
                script.append(
                    f"mkdir -p {shlex.quote(str(tree))}; mount --rbind /run/{number} {shlex.quote(str(tree))}"
                )
        home = shlex.quote(str(trees[0]))
        drop = f"setpriv --reuid {self.uid} --regid {self.uid} --clear-groups --inh-caps=-all --bounding-set=-all"
        script += [f"cd {home}", f'exec env HOME={home} TMPDIR={home} {drop} "$@"']
        return ["unshare", "--mount", "--propagation", "private", "--", "sh", "-c", "\n".join(script), "sh"]


def _first_closed(path: Path) -> Path | None:
    """The topmost directory on the way to `path` that other users may not pass."""
    return next(
        (way for way in (*reversed(path.parents), path) if way.is_dir() and not way.stat().st_mode & 0o001), None
    )
